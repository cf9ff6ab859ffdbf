#include "base/new_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace toaster {

NewFile::NewFile(const std::filesystem::path& path)
    : path_(path),
      temporary_(path.parent_path() / fmt::format(".{}.partial", path.filename().string())) {
  descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) Fail("cannot create", errno);
}

NewFile::~NewFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink(temporary_.c_str());
}

void NewFile::Reserve(int64_t bytes) {
  if (bytes > 0 && fallocate(descriptor_, 0, 0, bytes) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    Fail(fmt::format("cannot reserve {} bytes", bytes), errno);
  }
}

void NewFile::Write(std::span<const std::byte> bytes, int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) Fail("cannot write", written < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
}

void NewFile::Finish() {
  if (fdatasync(descriptor_) != 0) Fail("cannot write", errno);
  const int descriptor = descriptor_;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) Fail("cannot rename", errno);
  descriptor_ = -1;
  close(descriptor);
}

void NewFile::Fail(const std::string& what, int reason) const {
  throw Error(ErrorCode::kIo,
              fmt::format("{}: {}: {}{}", path_.string(), what, std::strerror(reason),
                          reason == ENOSPC || reason == EDQUOT ? "; make room and try again" : ""));
}

void WriteWholeFile(const std::filesystem::path& path, std::string_view text) {
  NewFile file(path);
  file.Write(std::as_bytes(std::span(text)), 0);
  file.Finish();
}

}  // namespace toaster
