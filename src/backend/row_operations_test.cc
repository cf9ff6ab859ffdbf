#include "backend/row_operations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/random.h"

namespace toaster {
namespace {

// All numbers in the order of their scores, by a stable sort.
std::vector<int32_t> ExpectedTop(const std::vector<float>& scores, int64_t count) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int32_t i) {
    const float score = scores[static_cast<size_t>(i)];
    return std::isnan(score) ? std::pair(1, 0.0f) : std::pair(0, -score);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return rank(a) < rank(b); });
  order.resize(std::min(order.size(), static_cast<size_t>(count)));
  std::sort(order.begin(), order.end());
  return order;
}

TEST(SelectTopTest, TakesTheLargestAndOfEqualsTheFirst) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<int32_t> chosen;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto draw = [&](uint64_t i, uint64_t below) {
      return Philox(seed, i, 0)[0] % static_cast<uint32_t>(below);
    };
    const int64_t n = draw(0, 2000), count = draw(1, 300);
    const int kind = static_cast<int>(seed % 6);
    std::vector<float> scores(static_cast<size_t>(n));
    for (size_t i = 0; i < scores.size(); ++i) {
      const auto drawn = static_cast<float>(draw(i + 2, 1000));
      switch (kind) {
        case 0:
          scores[i] = drawn;
          break;
        case 1:
          scores[i] = static_cast<float>(i);
          break;  // always a better one
        case 2:
          scores[i] = -static_cast<float>(i);
          break;  // never
        case 3:
          scores[i] = drawn < 500 ? 0.0f : -0.0f;
          break;
        case 4:
          scores[i] = drawn < 300 ? kNan : drawn < 600 ? -kInfinity : drawn;
          break;
        default:
          scores[i] = static_cast<float>(static_cast<int>(drawn) / 200);
      }
    }
    SelectTop(scores.data(), n, count, chosen);
    EXPECT_EQ(chosen, ExpectedTop(scores, count)) << n << ", " << count << ", kind " << kind;
  }
}

}  // namespace
}  // namespace toaster
