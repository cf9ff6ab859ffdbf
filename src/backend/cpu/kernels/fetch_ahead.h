#pragma once

// Fetching weights before they are needed. Included by kernel files: everything here is local to
// them.

#include <cstdint>

namespace toaster::kernels {

namespace {

/// Where to, for __builtin_prefetch. A fetch into the first level holds one of its few miss buffers
/// until memory answers, so where inputs come from the second level, they wait for those.
constexpr int kFirstLevel = 3, kSecondLevel = 2;

/// How many rows ahead a stream over rows, so many at a time, fetches: as far as memory is away,
/// and no further than the second-level cache holds.
constexpr int64_t RowsAhead(int64_t rows_at_a_time, int64_t row_bytes) {
  constexpr int64_t kBytesAhead = 32 << 10;
  const int64_t bytes = rows_at_a_time * row_bytes;
  return (kBytesAhead + bytes - 1) / bytes * rows_at_a_time;
}

/// Brings rows of a matrix nearer, a few cache lines at every step of the work on others: all at
/// once they would wait for each other, and the work for them.
template <int kLevel>
class RowFetcher {
 public:
  /// `bytes` of `rows` rows from `first` on, to be there after `steps` steps.
  RowFetcher(const uint8_t* first, int64_t row_bytes, int64_t rows, int64_t bytes, int64_t steps)
      : row_(first),
        row_bytes_(row_bytes),
        rows_(rows),
        bytes_(bytes),
        lines_per_step_((rows * ((bytes + 63) / 64) + steps - 1) / steps) {}
  void Step() {
    for (int64_t i = 0; i < lines_per_step_ && rows_ > 0; ++i) {
      __builtin_prefetch(row_ + offset_, 0, kLevel);
      offset_ += 64;
      if (offset_ >= bytes_) offset_ = 0, row_ += row_bytes_, --rows_;
    }
  }

 private:
  const uint8_t* row_;
  int64_t row_bytes_, rows_, bytes_, lines_per_step_;
  int64_t offset_ = 0;
};

/// For loops that have nothing to fetch.
struct NoFetcher {
  void Step() {}
};

}  // namespace

}  // namespace toaster::kernels
