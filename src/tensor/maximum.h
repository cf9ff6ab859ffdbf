#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "tensor/summation.h"

namespace toaster {

/// The largest of x [n], -infinity of none; in lanes, since one comparison after the other waits
/// for the one before. No NaN among them.
static inline float MaxFloat(const float* x, int64_t n) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = std::max(lanes[lane], x[i + lane]);
  }
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace toaster
