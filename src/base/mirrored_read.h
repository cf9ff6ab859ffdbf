#pragma once

// Direct reads of files that lie on several disks at once.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/direct_read.h"

namespace toaster {

/// Where a read of `bytes` ends first, if each place first serves what was given to it before:
/// `waiting[i]` bytes at `rates[i]` bytes a second, whichever unit. Of equals the first.
size_t EndsFirst(const std::vector<double>& waiting, const std::vector<double>& rates,
                 double bytes);

/// One DirectReader for each copy of the same files. A job goes where it will end first, so that
/// disks share the work in proportion to their speeds, which are measured meanwhile; one that fails
/// goes to the next copy before it counts as failed. Safe to use from any thread.
class MirroredReader {
 public:
  using Range = DirectReader::Range;
  using Done = DirectReader::Done;

  /// `copies` are lists of the same files in the same order; what they hold is not compared. Throws
  /// what DirectReader throws.
  explicit MirroredReader(const std::vector<std::vector<std::filesystem::path>>& copies,
                          const DirectReadOptions& options = {});
  ~MirroredReader();
  MirroredReader(const MirroredReader&) = delete;
  MirroredReader& operator=(const MirroredReader&) = delete;

  /// As those of DirectReader.
  int64_t Start(std::vector<Range> ranges, bool urgent, Done done);
  void Hurry(int64_t job);
  bool Cancel(int64_t job);

  DirectReadMethod method() const { return copies_.front().reader->method(); }
  size_t copies() const { return copies_.size(); }
  /// Of one copy.
  DirectReadFigures figures(size_t copy) const { return copies_[copy].reader->figures(); }
  /// Of all: bytes together, and the time of the one that was busy longest.
  DirectReadFigures figures() const;

 private:
  struct Copy {
    std::unique_ptr<DirectReader> reader;
    double waiting = 0;          // bytes given to it that have not come
    double rate = 1e9;           // bytes a second, as last measured
    DirectReadFigures measured;  // when it was
  };
  struct Job {
    std::vector<Range> ranges;
    Done done;
    double bytes = 0;
    size_t copy = 0;
    int64_t number = 0;  // of the copy's reader
    size_t tries = 1;
  };

  void StartOn(size_t copy, int64_t id, Job& job, bool urgent);  // with the lock held
  void OnEnd(int64_t id, const std::exception_ptr& failure);
  void MeasureRate(Copy& copy);

  std::mutex mutex_;
  bool stopping_ = false;
  int64_t next_job_ = 0;
  std::unordered_map<int64_t, Job> jobs_;
  std::vector<Copy> copies_;  // last: readers end before what their reads tell
};

}  // namespace toaster
