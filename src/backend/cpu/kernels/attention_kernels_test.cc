#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "backend/cpu/kernels/test_support.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster::kernels {
namespace {

class AttentionKernelsTest : public KernelTest {};

TEST_P(AttentionKernelsTest, ExpandEntry) {
  TestRandom random(1);
  for (int round = 0; round < 400; ++round) {
    const int64_t plain = 64 * random.Between(0, 8), rotary = 2 * random.Between(0, 40);
    std::vector<uint8_t> bytes(1 + plain + 2 * rotary + plain / 64);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Bits());
    const uint8_t* entry = bytes.data() + 1;
    const int64_t padded = (plain + rotary + 31) / 32 * 32;
    AlignedArray<uint16_t> out(padded);
    for (int64_t i = 0; i < padded; ++i) out[i] = 0x1234;
    table().expand_entry(entry, plain, rotary, out.data());
    for (int64_t i = 0; i < plain; ++i) {
      const float scale = E8m0ToFloat(entry[plain + 2 * rotary + i / 64]);
      ASSERT_TRUE(SameBf16(FloatToBf16(E4m3ToFloat(entry[i]) * scale), out[i])) << i;
    }
    for (int64_t i = 0; i < rotary; ++i) {
      ASSERT_EQ(LoadUnaligned<uint16_t>(entry + plain + 2 * i), out[plain + i]) << i;
    }
    for (int64_t i = plain + rotary; i < padded; ++i) ASSERT_EQ(out[i], 0);
  }
}

// Every code with every scale.
TEST_P(AttentionKernelsTest, ExpandEveryCode) {
  AlignedArray<uint16_t> out(256);
  for (int byte = 0; byte < 256; ++byte) {
    std::vector<uint8_t> entry(256 + 4, static_cast<uint8_t>(byte));
    for (int code = 0; code < 256; ++code) entry[code] = static_cast<uint8_t>(code);
    table().expand_entry(entry.data(), 256, 0, out.data());
    const float scale = E8m0ToFloat(static_cast<uint8_t>(byte));
    for (int code = 0; code < 256; ++code) {
      const float value = E4m3ToFloat(static_cast<uint8_t>(code));
      ASSERT_TRUE(SameBf16(FloatToBf16(value * scale), out[code])) << code << " " << byte;
    }
  }
}

TEST_P(AttentionKernelsTest, ScaleScores) {
  TestRandom random(4);
  for (int round = 0; round < 200; ++round) {
    AlignedArray<float> scores(16 * random.Between(0, 40));
    const float factor = random.Float(Temper::kOrdinary);
    for (int64_t i = 0; i < scores.size(); ++i) {
      scores[i] = random.Float(kTempers[round % 4]);
      if (random.Below(5) == 0) scores[i] = -std::numeric_limits<float>::infinity();
    }
    std::vector<float> expected(scores.data(), scores.data() + scores.size());
    float largest = -std::numeric_limits<float>::infinity();
    for (float& score : expected) {
      score *= factor;
      if (score > largest) largest = score;
    }
    const float result = table().scale_scores(scores.data(), scores.size(), factor);
    // Zeros of both signs are equally large.
    ASSERT_EQ(largest, result);
    for (int64_t i = 0; i < scores.size(); ++i) ASSERT_TRUE(SameFloat(expected[i], scores[i])) << i;
  }
}

void CheckNumerators(const KernelTable& table, const AlignedArray<float>& scores, float maximum) {
  const int64_t n = scores.size();
  AlignedArray<uint16_t> p(n);
  float lanes[kLanes], expected[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = expected[i] = 0.25f * static_cast<float>(i);
  table.softmax_numerators(scores.data(), n, maximum, p.data(), lanes);
  for (int64_t i = 0; i < n; ++i) {
    const float e = Exp(scores[i] - maximum);
    expected[i % kLanes] += e;
    ASSERT_TRUE(SameBf16(FloatToBf16(e), p[i])) << scores[i] << " - " << maximum;
  }
  for (int i = 0; i < kLanes; ++i) ASSERT_TRUE(SameFloat(expected[i], lanes[i])) << i;
}

TEST_P(AttentionKernelsTest, SoftmaxNumerators) {
  TestRandom random(2);
  for (int round = 0; round < 300; ++round) {
    AlignedArray<float> scores(16 * random.Between(1, 50));
    const Temper temper = kTempers[round % 4];
    float maximum = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < scores.size(); ++i) {
      scores[i] = random.Float(temper);
      if (random.Below(9) == 0) scores[i] = -std::numeric_limits<float>::infinity();
      if (scores[i] > maximum) maximum = scores[i];
    }
    CheckNumerators(table(), scores, maximum);
  }
}

// A sweep over the whole range of the exponential, the neighbourhoods of its limits included.
TEST_P(AttentionKernelsTest, SoftmaxNumeratorsEverywhere) {
  AlignedArray<float> scores(16 * 4096);
  for (int64_t i = 0; i < scores.size(); ++i) {
    scores[i] = -105.0f + 200.0f * static_cast<float>(i) / static_cast<float>(scores.size());
  }
  CheckNumerators(table(), scores, 0.0f);
  for (const float limit : {kExpOverflow, kExpUnderflow, 0.0f}) {
    AlignedArray<float> around(64);
    float value = limit;
    for (int i = 0; i < 32; ++i) value = std::nextafter(value, -1000.0f);
    for (int i = 0; i < 64; ++i) around[i] = value = std::nextafter(value, 1000.0f);
    CheckNumerators(table(), around, 0.0f);
  }
}

TEST_P(AttentionKernelsTest, AccumulateBf16) {
  TestRandom random(3);
  for (int round = 0; round < 160; ++round) {
    const Temper temper = kTempers[round % 4];
    const bool turned = round / 4 % 2;  // factors given by slots, not by heads
    const int64_t heads = random.Between(1, 20), slots = 2 * random.Between(1, 80);
    const int64_t width = 32 * random.Between(1, 6);
    const int64_t p_stride = turned ? heads + random.Below(9) : (slots + 31) / 32 * 32;
    const int64_t p_head = turned ? 1 : p_stride, p_slot = turned ? p_stride : 1;
    const int64_t v_stride = width + 32 * random.Below(2), o_stride = width + 32 * random.Below(2);
    AlignedArray<uint16_t> p((turned ? slots : heads) * p_stride), v(slots * v_stride);
    for (int64_t i = 0; i < p.size(); ++i) p[i] = random.Bf16(temper);
    for (int64_t i = 0; i < v.size(); ++i) v[i] = random.Bf16(temper);
    AlignedArray<float> o(heads * o_stride), expected(heads * o_stride);
    for (int64_t i = 0; i < o.size(); ++i) o[i] = expected[i] = random.Float(Temper::kOrdinary);
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t c = 0; c < width; ++c) {
        float& sum = expected[h * o_stride + c];
        for (int64_t s = 0; s < slots; s += 2) {
          for (const int64_t at : {s + 1, s}) {
            sum = std::fma(Bf16ToFloat(p[h * p_head + at * p_slot]),
                           Bf16ToFloat(v[at * v_stride + c]), sum);
          }
        }
      }
    }
    table().accumulate_bf16(p.data(), p_head, p_slot, v.data(), v_stride, heads, slots, width,
                            o.data(), o_stride);
    for (int64_t i = 0; i < o.size(); ++i) ASSERT_TRUE(SameFloat(expected[i], o[i])) << i;
  }
}

TEST_P(AttentionKernelsTest, AccumulateF32) {
  TestRandom random(4);
  for (int round = 0; round < 160; ++round) {
    const Temper temper = kTempers[round % 4];
    const bool turned = round / 4 % 2;
    const int64_t heads = random.Between(1, 20), slots = random.Between(1, 150),
                  width = random.Between(1, 70);
    const int64_t p_stride = (turned ? heads : slots) + random.Below(9);
    const int64_t p_head = turned ? 1 : p_stride, p_slot = turned ? p_stride : 1;
    const int64_t v_stride = width + random.Below(9), o_stride = width + random.Below(9);
    AlignedArray<float> p((turned ? slots : heads) * p_stride), v(slots * v_stride);
    for (int64_t i = 0; i < p.size(); ++i) p[i] = random.Float(temper);
    for (int64_t i = 0; i < v.size(); ++i) v[i] = random.Float(temper);
    AlignedArray<float> o(heads * o_stride), expected(heads * o_stride);
    for (int64_t i = 0; i < o.size(); ++i) o[i] = expected[i] = random.Float(Temper::kOrdinary);
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t c = 0; c < width; ++c) {
        float& sum = expected[h * o_stride + c];
        for (int64_t s = 0; s < slots; ++s)
          sum = std::fma(p[h * p_head + s * p_slot], v[s * v_stride + c], sum);
      }
    }
    table().accumulate_f32(p.data(), p_head, p_slot, v.data(), v_stride, heads, slots, width,
                           o.data(), o_stride);
    for (int64_t i = 0; i < o.size(); ++i) ASSERT_TRUE(SameFloat(expected[i], o[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, AttentionKernelsTest, ::testing::ValuesIn(RunnableTables()),
                         TableName);

}  // namespace
}  // namespace toaster::kernels
