#include "engine/log_probabilities.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace toaster {

namespace {

// The logarithm of the sum of exponentials.
double LogSum(std::span<const float> logits) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return most + std::log(sum);
}

LogProbability Of(std::span<const float> logits, int32_t token, double log_sum) {
  return {token, static_cast<float>(logits[static_cast<size_t>(token)] - log_sum)};
}

}  // namespace

LogProbability LogProbabilityOf(std::span<const float> logits, int32_t token) {
  return Of(logits, token, LogSum(logits));
}

std::vector<LogProbability> MostLikely(std::span<const float> logits, int64_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const int64_t kept = std::min(count, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  const double log_sum = LogSum(logits);
  std::vector<LogProbability> likely;
  for (int64_t i = 0; i < kept; ++i) {
    likely.push_back(Of(logits, order[static_cast<size_t>(i)], log_sum));
  }
  return likely;
}

}  // namespace toaster
