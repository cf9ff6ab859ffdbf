#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace toaster {

/// A whole file mapped read-only. Owns the mapping; the bytes stay valid while it lives.
///
/// Opening costs no read: pages arrive when they are touched. A file that shrinks while it is
/// mapped makes later reads fail with SIGBUS, as with every mapping; checkpoints are not edited in
/// place. Safe to read from any thread.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws Error(kNotFound) when there is no such file and Error(kIo) when it cannot be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

/// Gives back the pages of a mapping that were touched; whoever touches them again reads them
/// again.
void DropPages(std::span<const std::byte> bytes);

/// While it lives, a page fault in these bytes reads that page alone. Without, the kernel reads
/// around each fault, up to megabytes, which costs more than a small tensor among large ones is
/// worth.
class ScopedRandomAccess {
 public:
  explicit ScopedRandomAccess(std::span<const std::byte> bytes);
  ~ScopedRandomAccess();
  ScopedRandomAccess(const ScopedRandomAccess&) = delete;
  ScopedRandomAccess& operator=(const ScopedRandomAccess&) = delete;

 private:
  std::span<const std::byte> pages_;
};

}  // namespace toaster
