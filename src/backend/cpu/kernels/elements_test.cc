#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "backend/cpu/kernels/test_support.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster::kernels {
namespace {

class ElementsTest : public KernelTest {};

TEST_P(ElementsTest, RoundBf16) {
  TestRandom random(1);
  for (int64_t n = 1; n <= 200; ++n) {
    const int64_t padded = (n + 31) / 32 * 32;
    AlignedArray<float> x(padded);
    AlignedArray<uint16_t> out(padded);
    for (const Temper temper : kTempers) {
      for (int64_t i = 0; i < n; ++i) x[i] = random.Float(temper);
      for (int64_t i = n; i < padded; ++i) x[i] = 1.0f;
      for (int64_t i = 0; i < padded; ++i) out[i] = 0x1234;
      table().round_bf16(x.data(), n, out.data());
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_TRUE(SameBf16(FloatToBf16(x[i]), out[i])) << x[i];
        // The payload aside, denormals count here: rounding is no arithmetic.
        if (x[i] == x[i]) {
          ASSERT_EQ(FloatToBf16(x[i]), out[i]);
        }
      }
      for (int64_t i = n; i < padded; ++i) ASSERT_EQ(out[i], 0);
    }
  }
}

void DefineQuantizeE4m3(const float* x, uint16_t* out) {
  float amax = kE4m3AmaxFloor;
  for (int i = 0; i < 128; ++i) {
    if (std::fabs(x[i]) > amax) amax = std::fabs(x[i]);
  }
  const float scale = E8m0ToFloat(BlockScaleByte(amax, kE4m3InverseMax));
  for (int i = 0; i < 128; ++i) {
    out[i] = FloatToBf16(E4m3ToFloat(FloatToE4m3(x[i] / scale)) * scale);
  }
}

TEST_P(ElementsTest, QuantizeE4m3) {
  TestRandom random(2);
  AlignedArray<float> x(512);
  AlignedArray<uint16_t> out(512);
  uint16_t expected[128];
  for (int round = 0; round < 2000; ++round) {
    const Temper temper = kTempers[round % 4];
    const int shift = static_cast<int>(random.Between(-140, 120));
    for (float& value : std::span(x.data(), 512)) {
      value = random.Float(temper);
      // Ordinary numbers of every size, with some far smaller than the largest.
      if (temper == Temper::kOrdinary) {
        value = std::ldexp(value, shift - static_cast<int>(random.Below(4) * random.Below(7)));
      }
      if (temper == Temper::kAll && random.Below(8)) value = 1.0f;
    }
    table().quantize_e4m3(x.data(), 512, out.data());
    for (int block = 0; block < 4; ++block) {
      DefineQuantizeE4m3(x.data() + 128 * block, expected);
      for (int i = 0; i < 128; ++i) {
        ASSERT_TRUE(SameBf16(expected[i], out[128 * block + i]))
            << x[128 * block + i] << " round " << round;
      }
    }
  }
}

// Every tie and near-tie of the rounding to E4M3.
TEST_P(ElementsTest, QuantizeE4m3Ties) {
  AlignedArray<float> x(128);
  AlignedArray<uint16_t> out(128);
  uint16_t expected[128];
  for (int code = 0; code < 126; ++code) {
    const float low = E4m3ToFloat(static_cast<uint8_t>(code));
    const float high = E4m3ToFloat(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    const float near[] = {low, middle, high, std::nextafter(middle, 0.0f),
                          std::nextafter(middle, 500.0f)};
    for (int i = 0; i < 128; ++i) x[i] = near[i % 5] * (i % 2 ? -1.0f : 1.0f);
    x[127] = 448.0f;
    table().quantize_e4m3(x.data(), 128, out.data());
    DefineQuantizeE4m3(x.data(), expected);
    for (int i = 0; i < 128; ++i) ASSERT_TRUE(SameBf16(expected[i], out[i])) << x[i];
  }
}

TEST_P(ElementsTest, Swiglu) {
  TestRandom random(3);
  for (int64_t n = 1; n <= 150; ++n) {
    const int64_t padded = (n + 31) / 32 * 32;
    AlignedArray<float> gate(padded), up(padded), out(padded);
    for (const Temper temper : kTempers) {
      for (const float limit : {0.0f, 10.0f, 0.5f}) {
        const float weight = random.Float(Temper::kOrdinary);
        for (int64_t i = 0; i < n; ++i) {
          gate[i] = random.Float(temper);
          up[i] = random.Float(temper);
        }
        for (int64_t i = 0; i < padded; ++i) out[i] = 77.0f;
        table().swiglu(gate.data(), up.data(), n, limit, weight, out.data());
        for (int64_t i = 0; i < n; ++i) {
          float g = gate[i], u = up[i];
          if (limit > 0) {
            if (g > limit) g = limit;
            if (u > limit) u = limit;
            if (u < -limit) u = -limit;
          }
          ASSERT_TRUE(SameFloat(weight * ((g * Sigmoid(g)) * u), out[i]))
              << gate[i] << " " << up[i];
        }
        for (int64_t i = n; i < padded; ++i) ASSERT_EQ(out[i], 77.0f);
      }
    }
  }
}

TEST_P(ElementsTest, SwigluBackward) {
  TestRandom random(4);
  for (int64_t n = 1; n <= 150; ++n) {
    AlignedArray<float> gate(n), up(n), grad(n), grad_gate(n), grad_up(n);
    for (const Temper temper : kTempers) {
      for (const float limit : {0.0f, 10.0f, 0.5f}) {
        const float weight = random.Float(Temper::kOrdinary);
        float lanes[16] = {};
        for (int64_t i = 0; i < n; ++i) {
          gate[i] = random.Float(temper);
          up[i] = random.Float(temper);
          grad[i] = random.Float(Temper::kOrdinary);
        }
        const float got = table().swiglu_backward(gate.data(), up.data(), n, limit, weight,
                                                  grad.data(), grad_gate.data(), grad_up.data());
        for (int64_t i = 0; i < n; ++i) {
          const bool high = limit > 0 && gate[i] > limit,
                     far = limit > 0 && std::fabs(up[i]) > limit;
          const float g = high ? limit : gate[i], u = far ? std::copysign(limit, up[i]) : up[i];
          const float s = Sigmoid(g), silu = g * s;
          lanes[i % 16] = std::fma(grad[i], silu * u, lanes[i % 16]);
          const float to_gate = weight * grad[i] * u * (s + silu * (1.0f - s));
          ASSERT_TRUE(SameFloat(high ? 0.0f : to_gate, grad_gate[i])) << gate[i] << " " << up[i];
          ASSERT_TRUE(SameFloat(far ? 0.0f : weight * grad[i] * silu, grad_up[i]));
        }
        ASSERT_TRUE(SameFloat(FoldLanes(lanes), got)) << n;
      }
    }
  }
}

TEST_P(ElementsTest, Hadamard) {
  TestRandom random(4);
  for (int64_t n = 32; n <= 512; n *= 2) {
    for (int round = 0; round < 40; ++round) {
      AlignedArray<float> x(n);
      for (int64_t i = 0; i < n; ++i) x[i] = random.Float(kTempers[round % 4]);
      std::vector<float> expected(x.data(), x.data() + n);
      for (int64_t half = 1; half < n; half *= 2) {
        for (int64_t i = 0; i < n; ++i) {
          if (i & half) continue;
          const float a = expected[i], b = expected[i + half];
          expected[i] = a + b;
          expected[i + half] = a - b;
        }
      }
      const auto factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
      table().hadamard(x.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_TRUE(SameFloat(expected[i] * factor, x[i])) << i << " of " << n;
      }
    }
  }
}

TEST_P(ElementsTest, EncodeKey) {
  TestRandom random(5);
  for (int round = 0; round < 2000; ++round) {
    const int64_t width = 32 * random.Between(1, 5), key_bytes = width / 2 + width / 32;
    const Temper temper = kTempers[round % 4];
    const int shift = static_cast<int>(random.Between(-130, 120));
    AlignedArray<float> x(width);
    for (int64_t i = 0; i < width; ++i) {
      x[i] = random.Float(temper);
      if (temper == Temper::kOrdinary) x[i] = std::ldexp(x[i], shift);
      if (temper == Temper::kEdges) x[i] = 0.125f * static_cast<float>(random.Between(-60, 60));
    }
    std::vector<uint8_t> key(1 + key_bytes + 1, 0xEE);
    table().encode_key(x.data(), width, key.data() + 1);
    ASSERT_EQ(key[1 + key_bytes], 0xEE);
    for (int64_t block = 0; block < width / 32; ++block) {
      float amax = kE2m1AmaxFloor;
      for (int64_t i = 32 * block; i < 32 * block + 32; ++i) {
        if (std::fabs(x[i]) > amax) amax = std::fabs(x[i]);
      }
      const uint8_t byte = BlockScaleByte(amax, kE2m1InverseMax);
      ASSERT_EQ(byte, key[1 + width / 2 + block]);
      if (byte == 255) continue;  // NaN whatever the codes
      for (int64_t i = 32 * block; i < 32 * block + 32; ++i) {
        const uint8_t pair = key[1 + i / 2], code = i % 2 ? pair >> 4 : pair & 15;
        ASSERT_EQ(FloatToE2m1(x[i] / E8m0ToFloat(byte)), code) << x[i] << " scale " << int{byte};
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, ElementsTest, ::testing::ValuesIn(RunnableTables()), TableName);

}  // namespace
}  // namespace toaster::kernels
