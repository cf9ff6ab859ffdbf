#include "base/file_environment.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace toaster {

FileEnvironment& FileEnvironment::System() {
  static FileEnvironment system;
  return system;
}

int FileEnvironment::Create(const std::filesystem::path& path, int& descriptor) {
  descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  return descriptor < 0 ? errno : 0;
}

int FileEnvironment::Write(int descriptor, std::span<const std::byte> bytes, size_t& written) {
  const ssize_t count = write(descriptor, bytes.data(), bytes.size());
  written = count < 0 ? 0 : static_cast<size_t>(count);
  return count < 0 ? errno : 0;
}

int FileEnvironment::Sync(int descriptor) { return fdatasync(descriptor) != 0 ? errno : 0; }

int FileEnvironment::Close(int descriptor) { return close(descriptor) != 0 ? errno : 0; }

int FileEnvironment::Rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  return rename(from.c_str(), to.c_str()) != 0 ? errno : 0;
}

int FileEnvironment::Remove(const std::filesystem::path& path) {
  return unlink(path.c_str()) != 0 ? errno : 0;
}

int FileEnvironment::SyncDirectory(const std::filesystem::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return errno;
  const int reason = fsync(descriptor) != 0 ? errno : 0;
  close(descriptor);
  return reason;
}

int FileEnvironment::Read(const std::filesystem::path& path, int64_t offset,
                          std::span<std::byte> bytes, size_t& read) {
  read = 0;
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return errno;
  int reason = 0;
  while (read < bytes.size()) {
    const ssize_t count = pread(descriptor, bytes.data() + read, bytes.size() - read,
                                offset + static_cast<int64_t>(read));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) reason = errno;
    if (count <= 0) break;
    read += static_cast<size_t>(count);
  }
  close(descriptor);
  return reason;
}

int FileEnvironment::WriteWhole(const std::filesystem::path& temporary,
                                const std::filesystem::path& path,
                                std::span<const std::byte> bytes) {
  int descriptor = -1;
  int reason = Create(temporary, descriptor);
  if (reason != 0) return reason;
  while (reason == 0 && !bytes.empty()) {
    size_t written = 0;
    reason = Write(descriptor, bytes, written);
    if (reason == EINTR)
      reason = 0;
    else if (reason == 0 && written == 0)
      reason = EIO;
    bytes = bytes.subspan(written);
  }
  if (reason == 0) reason = Sync(descriptor);
  const int closing = Close(descriptor);
  if (reason == 0) reason = closing;
  if (reason == 0) reason = Rename(temporary, path);
  if (reason != 0) Remove(temporary);
  return reason;
}

}  // namespace toaster
