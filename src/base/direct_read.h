#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

namespace toaster {

class DirectReadQueue;
class DirectReadRing;

/// How a DirectReader asks the system: through one io_uring or with a thread per read in flight.
enum class DirectReadMethod { kRing, kThreads };

/// What a DirectReader has done so far.
struct DirectReadFigures {
  int64_t bytes = 0;        ///< read, alignment included
  double busy_seconds = 0;  ///< in which at least one read was in flight
};

struct DirectReadOptions {
  DirectReadMethod method = DirectReadMethod::kRing;  ///< kThreads where io_uring is barred
  int in_flight = 16;                                 ///< pieces at a time
  int64_t piece_bytes = int64_t{1} << 20;  ///< larger reads are cut; a multiple of kAlignment
  /// Asked about every finished piece by the offset it began at and whether it is a second try; a
  /// number other than 0 takes the place of success as an errno. For tests of damaged disks.
  std::function<int(int64_t offset, bool again)> fault;
};

/// Reads ranges of files past the page cache, several at a time, into memory of the caller. Where a
/// file system has no direct reads, they go through the page cache. A read that fails is tried once
/// more. Safe to use from any thread; destroying it waits for what is in flight.
class DirectReader {
 public:
  /// Offsets, lengths and addresses of the system's reads are multiples of this.
  static constexpr int64_t kAlignment = 4096;

  /// A range of a file. It is widened to whole blocks: byte `offset` of the file comes to lie at
  /// `buffer` + Shift(offset), and BufferBytes() are overwritten.
  struct Range {
    int file = 0;  ///< number in the list of the constructor
    int64_t offset = 0;
    int64_t bytes = 0;
    std::byte* buffer = nullptr;  ///< aligned to kAlignment
  };
  static int64_t Shift(int64_t offset) { return offset % kAlignment; }
  static int64_t BufferBytes(int64_t offset, int64_t bytes) {
    return (Shift(offset) + bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  /// Told once, on a thread of the reader, how a job ended: null, Error(kIo) naming file, offset
  /// and reason, or Error(kCancelled). Must not throw; may start jobs, must not wait for any.
  using Done = std::function<void(std::exception_ptr failure)>;

  /// Opens the files. Throws Error(kNotFound) or Error(kIo), naming the file.
  explicit DirectReader(const std::vector<std::filesystem::path>& files,
                        DirectReadOptions options = {});
  ~DirectReader();
  DirectReader(const DirectReader&) = delete;
  DirectReader& operator=(const DirectReader&) = delete;

  /// What it came to be.
  DirectReadMethod method() const;
  /// Whether the reads of a file bypass the page cache.
  bool direct(int file) const;

  /// Begins to read some ranges; urgent jobs go before the others, each kind in the order of their
  /// coming. Returns a number for Hurry() and Cancel().
  int64_t Start(const std::vector<Range>& ranges, bool urgent, Done done);
  /// Makes a job urgent that is not. Nothing if it is over.
  void Hurry(int64_t job);
  /// Drops what is not yet in flight. True if that was everything: then `done` is never called, and
  /// the buffers are free at once. Otherwise it will be or has been called.
  bool Cancel(int64_t job);

  /// Reads and waits. Throws what Done would be told.
  void Read(const std::vector<Range>& ranges);

  DirectReadFigures figures() const;

 private:
  std::vector<std::filesystem::path> files_;
  std::vector<int> descriptors_;
  std::vector<bool> direct_;
  std::unique_ptr<DirectReadQueue> queue_;
  std::unique_ptr<DirectReadRing> ring_;
  std::vector<std::thread> threads_;
};

/// Zeroed anonymous memory for direct reads, aligned to huge pages where the system has them: a
/// read into scattered small pages is several times slower. Memory counts as used once touched.
class ReadMemory {
 public:
  ReadMemory() = default;
  /// Throws Error(kOutOfMemory).
  explicit ReadMemory(int64_t bytes);
  ~ReadMemory();
  ReadMemory(ReadMemory&& other) noexcept;
  ReadMemory& operator=(ReadMemory&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace toaster
