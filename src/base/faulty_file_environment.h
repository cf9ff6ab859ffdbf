#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <vector>

#include "base/file_environment.h"
#include "base/random.h"

namespace toaster::test {

/// What can go wrong with a disk.
enum class Fault {
  kNone,
  kNoSpace,     ///< a write fails with ENOSPC
  kWriteError,  ///< a write fails with EIO
  kShortWrite,  ///< a write takes a part of the bytes, which is no error
  kTornPage,    ///< from some byte on, zeros are written, and all seems well
  kSyncError,
  kRenameError,
  kReadError,
  kShortRead,   ///< the file seems to end early
  kFlippedBit,  ///< one bit that is read is wrong
};
inline constexpr Fault kAllFaults[] = {Fault::kNoSpace,   Fault::kWriteError, Fault::kShortWrite,
                                       Fault::kTornPage,  Fault::kSyncError,  Fault::kRenameError,
                                       Fault::kReadError, Fault::kShortRead,  Fault::kFlippedBit};

/// The operating system's files with faults: `fault` strikes each operation it concerns with the
/// given probability. Counts what goes through it.
class FaultyFileEnvironment : public FileEnvironment {
 public:
  explicit FaultyFileEnvironment(uint64_t seed = 0) : seed_(seed) {}

  void Inject(Fault fault, double probability) { fault_ = fault, probability_ = probability; }
  int64_t bytes_written() const { return written_; }
  int64_t bytes_read() const { return read_; }
  int64_t faults() const { return struck_; }

  int Write(int descriptor, std::span<const std::byte> bytes, size_t& written) override {
    written = 0;
    if (Strikes(Fault::kNoSpace)) return ENOSPC;
    if (Strikes(Fault::kWriteError)) return EIO;
    if (bytes.size() > 1 && Strikes(Fault::kShortWrite)) {
      bytes = bytes.first(1 + Below(bytes.size() - 1));
    }
    std::vector<std::byte> torn;
    if (bytes.size() > 1 && Strikes(Fault::kTornPage)) {
      torn.assign(bytes.begin(), bytes.end());
      std::fill(torn.begin() + static_cast<ptrdiff_t>(Below(torn.size())), torn.end(),
                std::byte{0});
      bytes = torn;
    }
    const int reason = FileEnvironment::Write(descriptor, bytes, written);
    written_ += static_cast<int64_t>(written);
    return reason;
  }
  int Sync(int descriptor) override {
    return Strikes(Fault::kSyncError) ? EIO : FileEnvironment::Sync(descriptor);
  }
  int Rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    return Strikes(Fault::kRenameError) ? EIO : FileEnvironment::Rename(from, to);
  }
  int Read(const std::filesystem::path& path, int64_t offset, std::span<std::byte> bytes,
           size_t& read) override {
    read = 0;
    if (Strikes(Fault::kReadError)) return EIO;
    const int reason = FileEnvironment::Read(path, offset, bytes, read);
    read_ += static_cast<int64_t>(read);
    if (read > 0 && Strikes(Fault::kShortRead)) read = Below(read);
    if (read > 0 && Strikes(Fault::kFlippedBit)) {
      bytes[Below(read)] ^= std::byte{1} << Below(8);
    }
    return reason;
  }

 private:
  size_t Below(size_t limit) {
    return static_cast<size_t>(Philox(seed_, draws_++, 1)[0] % std::max<size_t>(1, limit));
  }
  bool Strikes(Fault fault) {
    if (fault_ != fault) return false;
    const double draw = static_cast<double>(Philox(seed_, draws_++, 2)[0]) / 4294967296.0;
    if (draw >= probability_) return false;
    ++struck_;
    return true;
  }

  uint64_t seed_;
  std::atomic<Fault> fault_ = Fault::kNone;
  std::atomic<double> probability_ = 0;
  std::atomic<uint64_t> draws_ = 0;
  std::atomic<int64_t> written_ = 0, read_ = 0, struck_ = 0;
};

}  // namespace toaster::test
