#include "apps/private_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace toaster {
namespace {

[[noreturn]] void Fail(const std::filesystem::path& path, const char* what, int reason) {
  throw Error(ErrorCode::kIo,
              fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(reason)));
}

/// Returns 0, or why it failed.
int WriteAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return 0;
}

}  // namespace

void WritePrivateFile(const std::filesystem::path& path, std::string_view text) {
  // mkstemp makes the file with mode 0600.
  std::string temporary = path.string() + ".XXXXXX";
  const int descriptor = mkstemp(temporary.data());
  if (descriptor < 0) Fail(path, "write", errno);
  int reason = WriteAll(descriptor, text);
  if (reason == 0 && fsync(descriptor) != 0) reason = errno;
  if (close(descriptor) != 0 && reason == 0) reason = errno;
  if (reason == 0 && rename(temporary.c_str(), path.c_str()) != 0) reason = errno;
  if (reason == 0) return;
  unlink(temporary.c_str());
  Fail(path, "write", reason);
}

void AppendPrivateFile(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::path folder;
  for (const std::filesystem::path& part : path.parent_path()) {
    folder /= part;
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST && errno != EISDIR && errno != EROFS &&
        errno != EACCES) {
      Fail(folder, "make the folder", errno);
    }
  }
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (descriptor < 0) Fail(path, "write", errno);
  const int reason = WriteAll(descriptor, text);
  close(descriptor);
  if (reason != 0) Fail(path, "write", reason);
}

}  // namespace toaster
