#include "base/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace toaster {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const int reason = errno;
    throw Error(reason == ENOENT || reason == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("{}: cannot open: {}; check the path and its permissions",
                            path.string(), std::strerror(reason)));
  }
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(descriptor);
    throw Error(ErrorCode::kIo, fmt::format("{}: not a regular file; name a file", path.string()));
  }
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) {
    close(descriptor);
    return;
  }
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  const int reason = errno;
  close(descriptor);
  if (address == MAP_FAILED) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot map {} bytes: {}", path.string(), size,
                                            std::strerror(reason)));
  }
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void DropPages(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_DONTNEED);
}

ScopedRandomAccess::ScopedRandomAccess(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const auto end =
      (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size() + page - 1) / page * page;
  pages_ = {reinterpret_cast<const std::byte*>(begin), end - begin};
  // Advice only: a refusal changes nothing but the time.
  madvise(const_cast<std::byte*>(pages_.data()), pages_.size(), MADV_RANDOM);
}

ScopedRandomAccess::~ScopedRandomAccess() {
  if (!pages_.empty()) {
    madvise(const_cast<std::byte*>(pages_.data()), pages_.size(), MADV_NORMAL);
  }
}

}  // namespace toaster
