#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace toaster {

struct LogProbability {
  int32_t token = 0;
  float value = 0;  ///< natural logarithm
};

/// Of `token`, from logits [vocabulary].
LogProbability LogProbabilityOf(std::span<const float> logits, int32_t token);

/// Of the `count` most likely tokens, the likeliest first; the lower id of equals.
std::vector<LogProbability> MostLikely(std::span<const float> logits, int64_t count);

}  // namespace toaster
