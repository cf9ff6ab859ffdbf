#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/index_queries.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/test_support.h"

namespace toaster::kernels {
namespace {

constexpr int64_t kKeyBytes = kCandidateWidth / 2 + kCandidateWidth / 32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A query's heads or keys: random codes, scales that lie `spread` apart at most.
std::vector<uint8_t> RandomKeys(int64_t count, int spread, TestRandom& random) {
  std::vector<uint8_t> keys(static_cast<size_t>(count * kKeyBytes));
  for (int64_t i = 0; i < count; ++i) {
    uint8_t* key = keys.data() + i * kKeyBytes;
    const auto least = random.Between(115, 135);
    for (int64_t k = 0; k < kCandidateWidth / 2; ++k) key[k] = static_cast<uint8_t>(random.Bits());
    for (int64_t b = 0; b < kCandidateWidth / 32; ++b)
      key[kCandidateWidth / 2 + b] = static_cast<uint8_t>(least + random.Between(0, spread));
  }
  return keys;
}

// What a table says of some keys, in pages that are each in memory of their own, where a byte too
// far is seen.
struct Found {
  std::vector<int32_t> keys;
  std::vector<float> lower, upper;
};
Found Find(const KernelTable& table, const IndexQueries& queries, const std::vector<uint8_t>& keys,
           int64_t page_keys, int32_t first, float bar) {
  const auto count = static_cast<int64_t>(keys.size()) / kKeyBytes;
  std::vector<std::vector<uint8_t>> pages;
  std::vector<const uint8_t*> starts;
  for (int64_t key = 0; key < count; key += page_keys) {
    const auto begin = keys.begin() + key * kKeyBytes;
    pages.emplace_back(begin, begin + std::min(page_keys, count - key) * kKeyBytes);
    starts.push_back(pages.back().data());
  }
  const auto room = static_cast<size_t>(count + kCandidateKeyStep);
  Found found = {std::vector<int32_t>(room), std::vector<float>(room), std::vector<float>(room)};
  const int64_t size =
      table.index_candidates(queries.Candidates(0), {starts.data(), page_keys}, count, first, bar,
                             {found.keys.data(), found.lower.data(), found.upper.data()});
  found.keys.resize(static_cast<size_t>(size));
  found.lower.resize(static_cast<size_t>(size));
  found.upper.resize(static_cast<size_t>(size));
  return found;
}

std::vector<float> Scores(const IndexQueries& queries, const std::vector<uint8_t>& keys) {
  std::vector<float> scores(keys.size() / kKeyBytes);
  const auto count = static_cast<int64_t>(scores.size());
  const uint8_t* const page = keys.data();
  Portable().index_scores(queries.Row(0), {&page, count}, count, scores.data());
  return scores;
}

// Tables that have the kernel.
std::vector<const KernelTable*> CandidateTables() {
  std::vector<const KernelTable*> tables;
  for (const std::string& name : RunnableTables()) {
    const KernelTable* table = Choose(name.c_str());
    if (table->index_candidates != nullptr) tables.push_back(table);
  }
  return tables;
}

// The bounds hold, and nobody is left out who reaches the bar.
void Check(const KernelTable& table, int64_t heads, int64_t count, int query_spread, int key_spread,
           uint64_t seed) {
  TestRandom random(seed);
  std::vector<uint8_t> query = RandomKeys(heads, query_spread, random);
  std::vector<float> weights(static_cast<size_t>(heads));
  for (float& weight : weights) {
    weight = Bf16ToFloat(random.Bf16(Temper::kOrdinary));
    if (seed % 3 == 0) weight = std::abs(weight);
    if (random.Below(20) == 0) weight = 0;
  }
  const bool alike = seed % 5 == 0;  // one head, and keys that are all the same: bounds are tight
  for (int64_t h = 0, only = random.Below(heads); h < heads && alike; ++h) {
    if (h == only) continue;
    weights[static_cast<size_t>(h)] = 0;
    std::fill_n(query.data() + h * kKeyBytes, kCandidateWidth / 2, uint8_t{0});
  }
  IndexQueries queries;
  queries.Resize(1, heads, kCandidateWidth, table);
  queries.Set(0, query.data(), weights.data());
  ASSERT_TRUE(queries.HasCandidates(0));
  std::vector<uint8_t> keys = RandomKeys(count, key_spread, random);
  for (int64_t i = 0; i < count && alike; ++i) {
    std::copy_n(keys.begin() + i / kCandidateKeyStep * kCandidateKeyStep * kKeyBytes, kKeyBytes,
                keys.begin() + i * kKeyBytes);
  }
  for (int64_t i = 0; i < count && !alike; i += 1 + random.Below(100)) {
    uint8_t* const key = keys.data() + i * kKeyBytes;
    switch (random.Below(5)) {
      case 0:  // as like a head as can be, so that the dot is large
        std::copy_n(query.data(), kKeyBytes, key);
        break;
      case 1:
        std::fill_n(key, kCandidateWidth / 2, uint8_t{0x77});
        break;
      case 2:  // not a number
        key[kKeyBytes - 1] = 255;
        break;
      case 3:  // scales that no float of the bounds could take
        std::fill_n(key + kCandidateWidth / 2, kCandidateWidth / 32,
                    static_cast<uint8_t>(random.Below(2) ? 1 : 250));
        break;
      default:
        std::fill_n(key, kCandidateWidth / 2, uint8_t{0x80});
    }
  }
  const std::vector<float> scores = Scores(queries, keys);
  std::vector<float> sorted;
  for (const float score : scores) {
    if (!std::isnan(score)) sorted.push_back(score);
  }
  std::sort(sorted.begin(), sorted.end());
  const int64_t page_keys = kCandidateKeyStep * random.Between(1, 4);
  const auto first = static_cast<int32_t>(random.Below(1000));
  for (const float bar : {-kInfinity, sorted.empty() ? 0.0f : sorted[sorted.size() * 9 / 10]}) {
    const Found found = Find(table, queries, keys, page_keys, first, bar);
    ASSERT_TRUE(std::is_sorted(found.keys.begin(), found.keys.end()));
    size_t at = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      const auto number = first + static_cast<int32_t>(i);
      if (at == found.keys.size() || found.keys[at] != number) {
        ASSERT_LE(scores[i], bar) << "key " << i << " was left out; seed " << seed;
        continue;
      }
      if (std::isnan(scores[i])) {
        ASSERT_EQ(found.lower[at], -kInfinity);
        ASSERT_EQ(found.upper[at], kInfinity);
      } else {
        ASSERT_LE(RoundBf16(found.lower[at]), scores[i]) << "key " << i << ", seed " << seed;
        ASSERT_GE(RoundBf16(found.upper[at]), scores[i]) << "key " << i << ", seed " << seed;
      }
      ASSERT_GE(found.upper[at], bar);
      ++at;
    }
    ASSERT_EQ(at, found.keys.size()) << "keys that are none";
  }
}

TEST(IndexCandidatesTest, TheBoundsHold) {
  const ScopedFlushDenormals flush;
  for (const KernelTable* table : CandidateTables()) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
      TestRandom random(1000 + seed);
      Check(*table, random.OneOf(std::vector<int64_t>{64, 50, 90, 128}), random.Between(1, 500),
            static_cast<int>(seed % 4), static_cast<int>(seed / 4 % 5), seed);
    }
  }
}

TEST(IndexCandidatesTest, FewAreInQuestion) {
  const ScopedFlushDenormals flush;
  constexpr int64_t kCount = 20000, kBest = 100;
  for (const KernelTable* table : CandidateTables()) {
    TestRandom random(7);
    IndexQueries queries;
    queries.Resize(1, 64, kCandidateWidth, *table);
    std::vector<float> weights(64);
    for (float& weight : weights) weight = Bf16ToFloat(random.Bf16(Temper::kOrdinary));
    queries.Set(0, RandomKeys(64, 1, random).data(), weights.data());
    ASSERT_TRUE(queries.HasCandidates(0));
    std::vector<uint8_t> keys = RandomKeys(kCount, 1, random);
    for (int64_t i = 0; i < kCount; ++i)  // scales that do not decide it all
      std::fill_n(keys.data() + (i + 1) * kKeyBytes - 4, 4, uint8_t{120});
    std::vector<float> scores = Scores(queries, keys);
    std::nth_element(scores.begin(), scores.begin() + kBest, scores.end(), std::greater<>());
    const Found found = Find(*table, queries, keys, 32, 0, scores[kBest]);
    EXPECT_GE(found.keys.size(), static_cast<size_t>(kBest));
    EXPECT_LE(found.keys.size(), static_cast<size_t>(4 * kBest));
  }
}

TEST(WholeIndexWeightsTest, SlacksCoverWhatIsRoundedAway) {
  TestRandom random(3);
  for (const int64_t heads : {64, 128}) {
    std::vector<float> weights(static_cast<size_t>(heads));
    for (float& weight : weights) weight = Bf16ToFloat(random.Bf16(Temper::kOrdinary));
    weights[1] = 0;
    std::vector<int16_t> whole(weights.size()), slacks(weights.size());
    const float scale = WholeIndexWeights(weights.data(), heads, whole.data(), slacks.data());
    double most = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const auto place = static_cast<size_t>(CandidateOrder(h));
      const double exact = static_cast<double>(weights[static_cast<size_t>(h)]) / scale;
      EXPECT_LE(std::abs(exact - whole[place]) + std::abs(exact) * 0x1.02p-7, slacks[place] / 16.0);
      EXPECT_GE(std::abs(exact) * 0x1p-7 + 0.6, slacks[place] / 16.0 - 0.2) << "too much";
      most += std::abs(whole[place]);
    }
    EXPECT_LE(most * kMostCandidateDot, std::numeric_limits<int32_t>::max());
  }
  const std::vector<float> none(64);
  std::vector<int16_t> whole(64), slacks(64);
  EXPECT_EQ(WholeIndexWeights(none.data(), 64, whole.data(), slacks.data()), 0);
}

}  // namespace
}  // namespace toaster::kernels
