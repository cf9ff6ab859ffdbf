#pragma once

#include <cstdint>
#include <string>

namespace toaster {

/// How many of some cases came out right, and what that says about all cases of their kind.
struct Proportion {
  int64_t right = 0, count = 0;

  void Add(bool is_right) {
    right += is_right;
    ++count;
  }
  /// 0 where nothing was counted.
  double share() const {
    return count > 0 ? static_cast<double>(right) / static_cast<double>(count) : 0;
  }

  struct Interval {
    double low = 0, high = 1;
  };
  /// Wilson's score interval: 95 of 100 such intervals hold the true share.
  Interval Wilson() const;
  /// "190 of 200, 95.0 % (91.0 to 97.3)".
  std::string Text() const;
};

}  // namespace toaster
