#include "backend/cpu/candidate_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "backend/cpu/kernels/test_support.h"
#include "backend/row_operations.h"
#include "tensor/number_formats.h"

namespace toaster {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Numbers {
  std::vector<float> scores, lower, upper;
};

// Scores from all different ones to a handful, and bounds from none to wide.
Numbers Draw(int64_t n, int round, kernels::TestRandom& random) {
  Numbers numbers;
  const int64_t values = 1 + random.Below(round % 3 == 0 ? 5 : 100000);
  const float width = round % 5 == 0 ? 0.0f : std::ldexp(1.0f, -(round % 13));
  for (int64_t i = 0; i < n; ++i) {
    const auto exact = static_cast<float>(random.Below(values) - values / 2);
    numbers.scores.push_back(RoundBf16(exact));
    numbers.lower.push_back(exact - width * static_cast<float>(random.Below(100)));
    numbers.upper.push_back(exact + width * static_cast<float>(random.Below(100)));
    if (random.Below(50) > 0) continue;
    numbers.lower.back() = -kInfinity;
    numbers.upper.back() = kInfinity;
    if (random.Below(2) > 0) numbers.scores.back() = std::numeric_limits<float>::quiet_NaN();
  }
  return numbers;
}

// As a scan does: pieces of numbers, to one list or the other.
std::vector<CandidateList> Fill(const Numbers& numbers, int64_t count, float least,
                                kernels::TestRandom& random) {
  std::vector<CandidateList> lists(2);
  for (CandidateList& list : lists) list.Clear(count, least);
  const auto n = static_cast<int64_t>(numbers.scores.size());
  for (int64_t begin = 0; begin < n; begin += 50) {
    CandidateList& list = lists[static_cast<size_t>(random.Below(2))];
    const kernels::IndexCandidates room = list.Room(50);
    int64_t found = 0;
    for (int64_t i = begin; i < std::min<int64_t>(begin + 50, n); ++i) {
      const auto at = static_cast<size_t>(i);
      if (numbers.upper[at] < list.bar()) continue;
      room.keys[found] = static_cast<int32_t>(i);
      room.lower[found] = numbers.lower[at];
      room.upper[found++] = numbers.upper[at];
    }
    list.Add(found);
  }
  return lists;
}

std::set<int32_t> Reaching(const std::vector<CandidateList>& lists, float bar) {
  std::vector<int32_t> keys;
  for (const CandidateList& list : lists) list.Take(0, list.size(), bar, keys);
  return {keys.begin(), keys.end()};
}

TEST(CandidateListTest, NoneOfTheBestIsLeftOut) {
  kernels::TestRandom random(1);
  int guessed_too_high = 0;
  for (int round = 0; round < 1000; ++round) {
    const int64_t n = 2 + random.Below(600), count = 1 + random.Below(n - 1);
    const Numbers numbers = Draw(n, round, random);
    std::vector<int32_t> best;
    SelectTop(numbers.scores.data(), n, count, best);
    // Without a guess, and with one that may be anything.
    for (const float guess : {-kInfinity, numbers.lower[static_cast<size_t>(random.Below(n))]}) {
      std::vector<CandidateList> lists = Fill(numbers, count, guess, random);
      std::optional<float> least = CandidateList::Least(lists, count);
      if (guess > -kInfinity && !least.has_value()) {
        ++guessed_too_high;
        lists = Fill(numbers, count, -kInfinity, random);
        least = CandidateList::Least(lists, count);
      }
      const std::set<int32_t> kept =
          Reaching(lists, CandidateList::BarOf(least.value_or(-kInfinity)));
      for (const int32_t key : best)
        ASSERT_TRUE(kept.contains(key)) << "round " << round << ", guess " << guess;
    }
  }
  EXPECT_GT(guessed_too_high, 100);
}

TEST(CandidateListTest, LittleElseIsKept) {
  kernels::TestRandom random(2);
  Numbers numbers;
  for (int i = 0; i < 20000; ++i) {
    const auto score = static_cast<float>(random.Below(20000));
    numbers.scores.push_back(RoundBf16(score));
    numbers.lower.push_back(score - 10);
    numbers.upper.push_back(score + 10);
  }
  const std::vector<CandidateList> lists = Fill(numbers, 500, -kInfinity, random);
  const std::optional<float> least = CandidateList::Least(lists, 500);
  ASSERT_TRUE(least.has_value());
  EXPECT_NEAR(*least, 19500 - 10, 100);
  // BF16 has every 128th number there.
  EXPECT_LE(Reaching(lists, CandidateList::BarOf(*least)).size(), 500 + 2 * 128 + 100);
  EXPECT_LE(lists[0].size() + lists[1].size(), 8000) << "the bar should rise";
}

TEST(CandidateListTest, TheBarIsBelowAllThatRoundsAlike) {
  kernels::TestRandom random(3);
  for (int i = 0; i < 100000; ++i) {
    const float x = random.Float(kernels::Temper::kWide);
    const float rounded = RoundBf16(x), bar = CandidateList::BarOf(x);
    if (std::isinf(rounded)) continue;
    ASSERT_LT(bar, rounded);
    ASSERT_LT(RoundBf16(bar), rounded) << x;
    ASSERT_GE(bar, rounded - std::abs(rounded) * 0x1p-6f - 0x1p-120f) << x;
  }
  EXPECT_EQ(CandidateList::BarOf(-kInfinity), -kInfinity);
}

}  // namespace
}  // namespace toaster
