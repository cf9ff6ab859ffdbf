#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace toaster {

/// The few operations through which a store of files meets the disk. Replaceable, so that a test
/// can let any of them fail or lie. Each returns 0 or an errno value: to a store a failing disk is
/// an expected outcome. Any thread.
class FileEnvironment {
 public:
  virtual ~FileEnvironment() = default;
  /// The operating system.
  static FileEnvironment& System();

  /// Makes a file that must not be there, for its owner alone (mode 0600).
  virtual int Create(const std::filesystem::path& path, int& descriptor);
  /// Writes up to all of `bytes`; `written` says how many.
  virtual int Write(int descriptor, std::span<const std::byte> bytes, size_t& written);
  virtual int Sync(int descriptor);
  virtual int Close(int descriptor);
  virtual int Rename(const std::filesystem::path& from, const std::filesystem::path& to);
  virtual int Remove(const std::filesystem::path& path);
  /// Brings a directory's names to disk.
  virtual int SyncDirectory(const std::filesystem::path& path);
  /// Reads from `offset` until `bytes` is full or the file ends; `read` says how many.
  virtual int Read(const std::filesystem::path& path, int64_t offset, std::span<std::byte> bytes,
                   size_t& read);

  /// Writes a file that appears under its name only when it is whole and on disk: under
  /// `temporary` first, synced, renamed. The directory is for the caller to sync. If anything
  /// fails, nothing is left, unless removing fails too.
  int WriteWhole(const std::filesystem::path& temporary, const std::filesystem::path& path,
                 std::span<const std::byte> bytes);
};

}  // namespace toaster
