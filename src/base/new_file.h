#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace toaster {

/// A file that appears under its name only when it is whole: until Finish() it is written beside
/// it, under a name of its own that is removed if Finish() is never reached. Owns the descriptor.
/// Every operation throws Error(kIo) naming the file. Write() may be called by several threads.
class NewFile {
 public:
  explicit NewFile(const std::filesystem::path& path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  /// Takes the space now, so that a full disk is known before hours of writing.
  void Reserve(int64_t bytes);
  void Write(std::span<const std::byte> bytes, int64_t offset);
  /// Brings the bytes to disk and gives the file its name, in place of an older one.
  void Finish();

 private:
  [[noreturn]] void Fail(const std::string& what, int reason) const;

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// Writes all of `text` to `path` or, if anything fails, nothing.
void WriteWholeFile(const std::filesystem::path& path, std::string_view text);

}  // namespace toaster
