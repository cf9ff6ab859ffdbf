#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/test_support.h"
#include "tensor/summation.h"

namespace toaster::kernels {
namespace {

// A query as the indexer has it, and in the layout of the kernel.
struct TestQuery {
  int64_t heads, width, padded_heads;
  std::vector<uint8_t> codes;     // [heads, width], E2M1
  std::vector<float> scales;      // [heads, width/32]
  std::vector<uint16_t> weights;  // [heads]
  AlignedArray<uint8_t> packed_codes;
  AlignedArray<int8_t> folded_codes;
  AlignedArray<int32_t> folded_offsets;
  AlignedArray<float> packed_scales, packed_weights, folded_weights;
  bool folds = true;

  // `spread`: how far apart a head's scales may be, in powers of two; -1: anything the temper
  // gives.
  TestQuery(int64_t head_count, int64_t head_width, Temper temper, int spread, TestRandom& random)
      : heads(head_count),
        width(head_width),
        padded_heads((heads + 15) / 16 * 16),
        codes(heads * width),
        scales(heads * width / 32),
        weights(heads),
        packed_codes(padded_heads * width),
        folded_codes(padded_heads * width),
        folded_offsets(padded_heads),
        packed_scales(padded_heads * width / 32),
        packed_weights(padded_heads),
        folded_weights(padded_heads) {
    std::fill_n(packed_codes.data(), packed_codes.size(), static_cast<uint8_t>(kIndexBias));
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<uint8_t> key(static_cast<size_t>(width / 2 + width / 32));
      const int base = static_cast<int>(random.Between(100, 150));
      for (int64_t k = 0; k < width; ++k) {
        const auto code = static_cast<uint8_t>(random.Below(16));
        codes[h * width + k] = code;
        key[k / 2] = static_cast<uint8_t>(key[k / 2] | code << (4 * (k % 2)));
      }
      for (int64_t b = 0; b < width / 32; ++b) {
        auto byte = static_cast<uint8_t>(temper == Temper::kOrdinary ? random.Between(120, 130)
                                                                     : random.Between(1, 254));
        if (spread >= 0) byte = static_cast<uint8_t>(base + random.Between(0, spread));
        scales[h * (width / 32) + b] = E8m0ToFloat(byte);
        key[width / 2 + b] = byte;
      }
      weights[h] = random.Bf16(temper);
      packed_weights[h] = Bf16ToFloat(weights[h]);
      PackIndexHead(key.data(), width, h, padded_heads, packed_codes.data(), packed_scales.data());
      folds = folds && FoldIndexHead(key.data(), width, h, padded_heads, packed_weights[h],
                                     folded_codes.data(), folded_offsets.data() + h,
                                     folded_weights.data() + h);
    }
  }

  IndexQuery view() const {
    IndexQuery query{
        packed_codes.data(), packed_scales.data(), packed_weights.data(), padded_heads, width, {}};
    if (folds) query.folded = {folded_codes.data(), folded_offsets.data(), folded_weights.data()};
    return query;
  }
};

// The score by definition, from the numbers themselves.
float Score(const TestQuery& query, const uint8_t* key) {
  float lanes[kLanes] = {};
  for (int64_t h = 0; h < query.padded_heads; ++h) {
    float dot = 0, weight = 0;
    if (h < query.heads) weight = Bf16ToFloat(query.weights[h]);
    for (int64_t b = 0; b < query.width / 32; ++b) {
      double sum = 0;  // of multiples of 1/4 up to 36: exact
      for (int64_t k = 32 * b; k < 32 * b + 32 && h < query.heads; ++k) {
        const uint8_t code = k % 2 ? key[k / 2] >> 4 : key[k / 2] & 15;
        sum += E2m1ToFloat(query.codes[h * query.width + k]) * E2m1ToFloat(code);
      }
      const float query_scale = h < query.heads ? query.scales[h * (query.width / 32) + b] : 0.0f;
      const float key_scale = E8m0ToFloat(key[query.width / 2 + b]);
      dot += static_cast<float>(4 * sum) * (query_scale * 0.25f * key_scale);
    }
    float positive = RoundBf16(dot);
    if (positive < 0) positive = 0;
    lanes[h % kLanes] += RoundBf16(positive * weight);
  }
  return RoundBf16(FoldLanes(lanes));
}

// A denormal product counts as zero; the compiler may have folded it where the processor flushes.
float Counted(float x) { return std::abs(x) < std::numeric_limits<float>::min() ? 0.0f : x; }

TEST(PackIndexHeadTest, PutsEveryCodeInItsPlace) {
  const ScopedFlushDenormals flush;
  TestRandom random(1);
  constexpr int64_t kWidth = 64, kHeads = 16;
  std::vector<uint8_t> codes(kWidth * kHeads, 99);
  std::vector<float> scales(kWidth / 32 * kHeads, 99.0f);
  for (int64_t head = 0; head < kHeads; ++head) {
    uint8_t key[kWidth / 2 + kWidth / 32];
    for (uint8_t& byte : key) byte = static_cast<uint8_t>(random.Bits());
    PackIndexHead(key, kWidth, head, kHeads, codes.data(), scales.data());
    for (int64_t k = 0; k < kWidth; ++k) {
      const uint8_t code = k % 2 ? key[k / 2] >> 4 : key[k / 2] & 15;
      ASSERT_EQ(2 * E2m1ToFloat(code), codes[(k / 4 * kHeads + head) * 4 + k % 4] - kIndexBias)
          << k;
    }
    for (int64_t block = 0; block < kWidth / 32; ++block) {
      ASSERT_TRUE(SameFloat(Counted(E8m0ToFloat(key[kWidth / 2 + block]) * 0.25f),
                            Counted(scales[block * kHeads + head])));
    }
  }
}

TEST(FoldIndexHeadTest, TheLargerScalesGoIntoTheCodes) {
  constexpr int64_t kWidth = 128, kHeads = 16, kHead = 3;
  TestRandom random(1);
  uint8_t key[kWidth / 2 + kWidth / 32];
  for (uint8_t& byte : key) byte = static_cast<uint8_t>(random.Bits());
  std::fill_n(key + 16, 16, uint8_t{0x80});  // zeros, and a scale that does not count
  const uint8_t scales[] = {120, 7, 123, 121};
  std::copy_n(scales, 4, key + kWidth / 2);
  std::vector<int8_t> codes(kWidth * kHeads);
  int32_t offset = 0;
  float weight = 0;
  const auto fold = [&](float head_weight) {
    return FoldIndexHead(key, kWidth, kHead, kHeads, head_weight, codes.data(), &offset, &weight);
  };
  ASSERT_TRUE(fold(3.0f));
  EXPECT_EQ(weight, 3.0f * E8m0ToFloat(120) * 0.25f);
  int sum = 0;
  for (int64_t k = 0; k < kWidth; ++k) {
    const uint8_t code = k % 2 ? key[k / 2] >> 4 : key[k / 2] & 15;
    const float value = k / 32 == 1 ? 0.0f : E2m1ToFloat(code) * E8m0ToFloat(scales[k / 32]);
    const int64_t place = FoldedOrder(k, kWidth);
    const int folded = codes[(place / 4 * kHeads + kHead) * 4 + place % 4];
    EXPECT_EQ(static_cast<float>(folded) * E8m0ToFloat(119), value) << k;
    sum += folded;
  }
  EXPECT_EQ(offset, -kFoldedIndexBias * sum);
  key[kWidth / 2] = 119;
  EXPECT_FALSE(fold(3.0f)) << "119 and 123 are too far apart";
  std::fill_n(key + kWidth / 2, 4, static_cast<uint8_t>(127 - kPlainExponent - 1));
  EXPECT_FALSE(fold(3.0f));
  std::fill_n(key + kWidth / 2, 4, static_cast<uint8_t>(127 - kPlainExponent));
  EXPECT_TRUE(fold(0.0f));
  EXPECT_FALSE(fold(1e-20f));
}

class IndexScoresTest : public KernelTest {
 protected:
  // `spread`: of scales, see TestQuery; keys go one step beyond it now and then.
  void Check(int64_t heads, int64_t width, int64_t count, Temper temper, int spread,
             uint64_t seed) {
    TestRandom random(seed);
    const TestQuery query(heads, width, temper, spread, random);
    const int64_t key_bytes = width / 2 + width / 32;
    std::vector<uint8_t> keys(1 + count * key_bytes);
    for (uint8_t& byte : keys) byte = static_cast<uint8_t>(random.Bits());
    for (int64_t i = 0; i < count; ++i) {
      const int base = static_cast<int>(random.Between(95, 155));
      for (int64_t b = 0; b < width / 32; ++b) {
        uint8_t& byte = keys[1 + i * key_bytes + width / 2 + b];
        if (temper == Temper::kOrdinary) byte = static_cast<uint8_t>(random.Between(120, 130));
        if (temper != Temper::kAll && byte == 255) byte = 0;
        if (spread >= 0)
          byte = static_cast<uint8_t>(base + random.Between(0, spread + (i % 50 == 49)));
      }
    }
    std::vector<float> out(count + 1, 77.0f);
    // In pages, each in memory of its own, where a byte too far is seen.
    const int64_t page_keys = random.Between(1, 40);
    std::vector<std::vector<uint8_t>> pages;
    std::vector<const uint8_t*> page_starts;
    for (int64_t key = 0; key < count; key += page_keys) {
      const uint8_t* begin = keys.data() + 1 + key * key_bytes;
      pages.emplace_back(begin, begin + std::min(page_keys, count - key) * key_bytes);
      page_starts.push_back(pages.back().data());
    }
    table().index_scores(query.view(), {page_starts.data(), page_keys}, count, out.data());
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(SameFloat(Score(query, keys.data() + 1 + i * key_bytes), out[i]))
          << "key " << i << " of " << count << ", " << heads << " heads, width " << width
          << ", seed " << seed;
    }
    ASSERT_EQ(out[count], 77.0f);
  }
};

TEST_P(IndexScoresTest, Flash) {
  for (const int spread : {-1, 0, 2, 3}) {
    for (uint64_t seed = 0; seed < 8; ++seed) Check(64, 128, 100, kTempers[seed % 4], spread, seed);
  }
}

TEST_P(IndexScoresTest, OtherSizes) {
  TestRandom random(5);
  for (uint64_t seed = 100; seed < 200; ++seed) {
    Check(random.Between(1, 70), 32 * random.Between(1, 6), random.Between(1, 40),
          kTempers[seed % 4], seed % 8 < 4 ? -1 : 3, seed);
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, IndexScoresTest, ::testing::ValuesIn(RunnableTables()), TableName);

}  // namespace
}  // namespace toaster::kernels
