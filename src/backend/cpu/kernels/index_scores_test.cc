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
  AlignedArray<int8_t> packed_codes;
  AlignedArray<float> packed_scales, packed_weights;

  TestQuery(int64_t head_count, int64_t head_width, Temper temper, TestRandom& random)
      : heads(head_count),
        width(head_width),
        padded_heads((heads + 15) / 16 * 16),
        codes(heads * width),
        scales(heads * width / 32),
        weights(heads),
        packed_codes(padded_heads * width),
        packed_scales(padded_heads * width / 32),
        packed_weights(padded_heads) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t k = 0; k < width; ++k) {
        const auto code = static_cast<uint8_t>(random.Below(16));
        codes[h * width + k] = code;
        packed_codes[(k / 4 * padded_heads + h) * 4 + k % 4] =
            static_cast<int8_t>(2 * E2m1ToFloat(code));
      }
      for (int64_t b = 0; b < width / 32; ++b) {
        const auto byte = static_cast<uint8_t>(
            temper == Temper::kOrdinary ? random.Between(120, 130) : random.Between(1, 254));
        scales[h * (width / 32) + b] = E8m0ToFloat(byte);
        packed_scales[b * padded_heads + h] = E8m0ToFloat(byte) * 0.25f;
      }
      weights[h] = random.Bf16(temper);
      packed_weights[h] = Bf16ToFloat(weights[h]);
    }
  }

  IndexQuery view() const {
    return {packed_codes.data(), packed_scales.data(), packed_weights.data(), padded_heads, width};
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
  std::vector<int8_t> codes(kWidth * kHeads, 99);
  std::vector<float> scales(kWidth / 32 * kHeads, 99.0f);
  for (int64_t head = 0; head < kHeads; ++head) {
    uint8_t key[kWidth / 2 + kWidth / 32];
    for (uint8_t& byte : key) byte = static_cast<uint8_t>(random.Bits());
    PackIndexHead(key, kWidth, head, kHeads, codes.data(), scales.data());
    for (int64_t k = 0; k < kWidth; ++k) {
      const uint8_t code = k % 2 ? key[k / 2] >> 4 : key[k / 2] & 15;
      ASSERT_EQ(2 * E2m1ToFloat(code), codes[(k / 4 * kHeads + head) * 4 + k % 4]) << k;
    }
    for (int64_t block = 0; block < kWidth / 32; ++block) {
      ASSERT_TRUE(SameFloat(Counted(E8m0ToFloat(key[kWidth / 2 + block]) * 0.25f),
                            Counted(scales[block * kHeads + head])));
    }
  }
}

class IndexScoresTest : public KernelTest {
 protected:
  void Check(int64_t heads, int64_t width, int64_t count, Temper temper, uint64_t seed) {
    TestRandom random(seed);
    const TestQuery query(heads, width, temper, random);
    const int64_t key_bytes = width / 2 + width / 32;
    std::vector<uint8_t> keys(1 + count * key_bytes);
    for (uint8_t& byte : keys) byte = static_cast<uint8_t>(random.Bits());
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t b = 0; b < width / 32; ++b) {
        uint8_t& byte = keys[1 + i * key_bytes + width / 2 + b];
        if (temper == Temper::kOrdinary) byte = static_cast<uint8_t>(random.Between(120, 130));
        if (temper != Temper::kAll && byte == 255) byte = 0;
      }
    }
    std::vector<float> out(count + 1, 77.0f);
    table().index_scores(query.view(), keys.data() + 1, count, out.data());
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(SameFloat(Score(query, keys.data() + 1 + i * key_bytes), out[i]))
          << "key " << i << " of " << count << ", " << heads << " heads, width " << width
          << ", seed " << seed;
    }
    ASSERT_EQ(out[count], 77.0f);
  }
};

TEST_P(IndexScoresTest, Flash) {
  for (uint64_t seed = 0; seed < 8; ++seed) Check(64, 128, 100, kTempers[seed % 4], seed);
}

TEST_P(IndexScoresTest, OtherSizes) {
  TestRandom random(5);
  for (uint64_t seed = 100; seed < 200; ++seed) {
    Check(random.Between(1, 70), 32 * random.Between(1, 6), random.Between(1, 40),
          kTempers[seed % 4], seed);
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, IndexScoresTest, ::testing::ValuesIn(RunnableTables()), TableName);

}  // namespace
}  // namespace toaster::kernels
