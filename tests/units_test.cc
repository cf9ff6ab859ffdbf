// The small numeric kernels against recorded vectors: tests/golden/units.safetensors.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "backend/hyper_coefficients.h"
#include "backend/registry.h"
#include "backend/row_operations.h"
#include "base/flush_denormals.h"
#include "checkpoint/safetensors.h"
#include "golden_set.h"
#include "model/rope_frequencies.h"
#include "tensor/block_quantization.h"
#include "tensor/number_formats.h"
#include "tensor/rotate.h"

namespace toaster {
namespace {

const SafetensorsFile& Units() {
  static const SafetensorsFile file(GoldenSet::Folder("units.safetensors"));
  return file;
}

template <typename T>
std::vector<T> Get(const std::string& name) {
  const StoredTensor* tensor = Units().Find(name);
  CHECK(tensor != nullptr, "{}", name);
  std::vector<T> values(static_cast<size_t>(tensor->bytes) / sizeof(T));
  std::memcpy(values.data(), tensor->data, static_cast<size_t>(tensor->bytes));
  return values;
}

std::vector<float> Floats(const std::string& name) { return Get<float>(name); }

uint32_t Bits(float x) { return std::bit_cast<uint32_t>(x); }

TEST(UnitsTest, Bf16IsRoundedTheSameWayInWordsOfBothSizes) {
  for (uint32_t high = 0; high < 1u << 16; ++high) {
    for (const uint32_t low : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      ASSERT_EQ(Bits(RoundBf16(x)), Bits(Bf16ToFloat(FloatToBf16(x)))) << high << " " << low;
    }
  }
}

TEST(UnitsTest, Bf16) {
  const std::vector<float> in = Floats("bf16.in"), out = Floats("bf16.out");
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(Bits(RoundBf16(in[i])), Bits(out[i])) << in[i];
}

// The recording gives -0 the code of +0; its own code is as right.
TEST(UnitsTest, E4m3) {
  const std::vector<float> in = Floats("e4m3.in"), out = Floats("e4m3.out"),
                           table = Floats("e4m3.table");
  const std::vector<uint8_t> code = Get<uint8_t>("e4m3.code");
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_EQ(Bits(E4m3ToFloat(FloatToE4m3(in[i]))), Bits(out[i])) << in[i];
    EXPECT_EQ(FloatToE4m3(in[i]), Bits(out[i]) == Bits(-0.0f) ? 0x80 : code[i]) << in[i];
  }
  for (int c = 0; c < 256; ++c) {
    const float value = E4m3ToFloat(static_cast<uint8_t>(c));
    if ((c & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    EXPECT_EQ(Bits(value), Bits(table[static_cast<size_t>(c)])) << c;
    EXPECT_EQ(FloatToE4m3(value), c);
  }
}

TEST(UnitsTest, E2m1) {
  const std::vector<float> in = Floats("e2m1.in"), out = Floats("e2m1.out"),
                           table = Floats("e2m1.table");
  const std::vector<uint8_t> code = Get<uint8_t>("e2m1.code");
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_EQ(Bits(E2m1ToFloat(FloatToE2m1(in[i]))), Bits(out[i])) << in[i];
    EXPECT_EQ(FloatToE2m1(in[i]), Bits(out[i]) == Bits(-0.0f) ? 8 : code[i]) << in[i];
  }
  for (int c = 0; c < 16; ++c) {
    EXPECT_EQ(Bits(E2m1ToFloat(static_cast<uint8_t>(c))), Bits(table[static_cast<size_t>(c)])) << c;
    EXPECT_EQ(FloatToE2m1(E2m1ToFloat(static_cast<uint8_t>(c))), c);
  }
}

TEST(UnitsTest, E8m0) {
  const std::vector<float> table = Floats("e8m0.table");
  for (int c = 0; c < 255; ++c) {
    EXPECT_EQ(Bits(E8m0ToFloat(static_cast<uint8_t>(c))), Bits(table[static_cast<size_t>(c)])) << c;
  }
  EXPECT_TRUE(std::isnan(E8m0ToFloat(255)));
}

// E4M3 in blocks of 64 is how cache entries are stored, of 128 how linear inputs are rounded.
TEST(UnitsTest, QuantiseE4m3) {
  for (const int block : {64, 128}) {
    const std::string name = "quant_e4m3_" + std::to_string(block);
    const std::vector<float> in = Floats(name + ".in"), out = Floats(name + ".out"),
                             scale = Floats(name + ".scale");
    std::vector<float> result(in.size());
    QuantizeE4m3(in.data(), static_cast<int64_t>(in.size()), block, result.data());
    for (size_t i = 0; i < in.size(); ++i)
      EXPECT_EQ(Bits(result[i]), Bits(out[i])) << name << " " << i;
    for (size_t b = 0; b < scale.size(); ++b) {
      float amax = kE4m3AmaxFloor;
      for (int i = 0; i < block; ++i)
        amax =
            std::max(amax, std::fabs(in[b * static_cast<size_t>(block) + static_cast<size_t>(i)]));
      EXPECT_EQ(E8m0ToFloat(BlockScaleByte(amax, kE4m3InverseMax)), scale[b]);
    }
  }
  const std::vector<float> in = Floats("quant_e4m3_64.in"), out = Floats("quant_e4m3_64.out");
  const EntryShape shape{128, 0};
  std::vector<uint8_t> entry(static_cast<size_t>(EntryBytes(shape)));
  std::vector<float> decoded(128);
  for (size_t row = 0; row < in.size() / 128; ++row) {
    EncodeEntry(in.data() + row * 128, shape, entry.data());
    DecodeEntry(entry.data(), shape, decoded.data());
    for (size_t i = 0; i < 128; ++i)
      EXPECT_EQ(Bits(decoded[i]), Bits(out[row * 128 + i])) << row << " " << i;
  }
}

TEST(UnitsTest, QuantiseE2m1) {
  const std::vector<float> in = Floats("quant_e2m1_32.in"), out = Floats("quant_e2m1_32.out");
  const std::vector<float> scale = Floats("quant_e2m1_32.scale");
  std::vector<uint8_t> key(static_cast<size_t>(KeyBytes(64)));
  std::vector<float> decoded(64);
  for (size_t row = 0; row < in.size() / 64; ++row) {
    EncodeKey(in.data() + row * 64, 64, key.data());
    DecodeKey(key.data(), 64, decoded.data());
    for (size_t i = 0; i < 64; ++i)
      EXPECT_EQ(Bits(decoded[i]), Bits(out[row * 64 + i])) << row << " " << i;
    for (size_t b = 0; b < 2; ++b) EXPECT_EQ(E8m0ToFloat(key[32 + b]), scale[row * 2 + b]);
  }
}

TEST(UnitsTest, Fp4Row) {
  const std::vector<uint8_t> bytes = Get<uint8_t>("fp4_row.bytes"),
                             scale = Get<uint8_t>("fp4_row.scale");
  const std::vector<float> out = Floats("fp4_row.out");
  const Matrix matrix{NumberFormat::kE2m1, ScaleFormat::kE8m0, 6, 64, bytes.data(), scale.data()};
  std::vector<float> row(64);
  for (int64_t r = 0; r < 6; ++r) {
    ExpandRow(matrix, r, row.data());
    for (size_t i = 0; i < 64; ++i)
      EXPECT_EQ(Bits(row[i]), Bits(out[static_cast<size_t>(r) * 64 + i]));
  }
}

// The recording sums in double; a float sum may land on the other side of a rounding boundary, one
// BF16 step away.
TEST(UnitsTest, Fp8Linear) {
  const ScopedFlushDenormals flush;
  const std::vector<uint8_t> weight = Get<uint8_t>("fp8_linear.weight"),
                             scale = Get<uint8_t>("fp8_linear.scale");
  const std::vector<float> in = Floats("fp8_linear.in"), out = Floats("fp8_linear.out");
  const Matrix matrix{NumberFormat::kE4m3, ScaleFormat::kE8m0, 256, 256,
                      weight.data(),       scale.data()};
  Tensor x({5, 256}), y;
  std::copy(in.begin(), in.end(), x.data());
  for (const std::string& name : BackendNames()) {
    BackendOptions options;
    options.backend = name;
    CreateBackend(options)->Linear(x, std::vector<Projection>{{&matrix, &y}});
    for (size_t i = 0; i < out.size(); ++i) {
      const auto got = static_cast<int32_t>(Bits(y.data()[i]) >> 16),
                 expected = static_cast<int32_t>(Bits(out[i]) >> 16);
      EXPECT_LE(std::abs(got - expected), 1) << name << " " << i;
    }
  }
}

TEST(UnitsTest, RopeFrequencies) {
  const RopeScaling scaling{16, 65536, 32, 1};
  const std::vector<float> plain = RopeFrequencies(64, 10000, nullptr),
                           expected_plain = Floats("rope.plain_freq");
  const std::vector<float> compressed = RopeFrequencies(64, 160000, &scaling),
                           expected = Floats("rope.comp_freq");
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(plain[i], expected_plain[i], 2e-7 * expected_plain[i]);
    EXPECT_NEAR(compressed[i], expected[i], 2e-7 * expected[i]);
  }
}

TEST(UnitsTest, Rotation) {
  const std::vector<int32_t> positions = Get<int32_t>("rope.positions");
  const std::vector<float> in = Floats("rope.in");
  const auto check = [&](const std::string& frequencies_name, const std::string& out_name,
                         bool inverse) {
    const std::vector<float> frequencies = Floats(frequencies_name), out = Floats(out_name);
    std::vector<float> cosine(32), sine(32), x(96);
    for (size_t row = 0; row < positions.size(); ++row) {
      RotationAngles(positions[row], frequencies, cosine.data(), sine.data());
      for (size_t head = 0; head < 3; ++head) {
        const size_t at = (row * 3 + head) * 96;
        std::copy_n(in.begin() + static_cast<int64_t>(at), 96, x.begin());
        RotatePairs(x.data() + 32, 64, cosine.data(), sine.data(), inverse);
        for (size_t i = 0; i < 96; ++i)
          EXPECT_NEAR(x[i], out[at + i], 5e-6) << out_name << " row " << row;
      }
    }
  };
  check("rope.plain_freq", "rope.out_plain", false);
  check("rope.comp_freq", "rope.out_comp", false);
  check("rope.comp_freq", "rope.out_comp_inverse", true);
}

// Relative to the largest number of the vector: a butterfly cancels large numbers into small ones.
TEST(UnitsTest, Hadamard) {
  std::vector<float> x = Floats("hadamard.in");
  const std::vector<float> out = Floats("hadamard.out");
  for (size_t row = 0; row < 4; ++row) {
    HadamardTransform(x.data() + row * 128, 128);
    for (size_t i = 0; i < 128; ++i)
      EXPECT_NEAR(x[row * 128 + i], out[row * 128 + i], 1e-6 * 4) << row << " " << i;
  }
}

TEST(UnitsTest, HyperConnectionCoefficients) {
  const std::vector<float> mix = Floats("hyper.mix"), scale = Floats("hyper.scale"),
                           base = Floats("hyper.base");
  const auto view = [](const std::vector<float>& values) {
    return Vector{NumberFormat::kFloat32, static_cast<int64_t>(values.size()),
                  reinterpret_cast<const uint8_t*>(values.data())};
  };
  const Matrix unused;
  const Vector base_view = view(base), scale_view = view(scale);
  const HyperParameters parameters{unused, base_view, scale_view, 20, 1e-6f, 1e-6f};
  const std::vector<float> expected_pre = Floats("hyper.pre"), expected_post = Floats("hyper.post");
  const std::vector<float> expected_comb = Floats("hyper.comb");
  std::vector<float> pre(4), post(4), comb(16);
  for (size_t row = 0; row < 8; ++row) {
    HyperCoefficients(mix.data() + row * 24, 1, parameters, 4, pre.data(), post.data(),
                      comb.data());
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(pre[i], expected_pre[row * 4 + i], 1e-6 * expected_pre[row * 4 + i]);
      EXPECT_NEAR(post[i], expected_post[row * 4 + i], 1e-6 * expected_post[row * 4 + i]);
    }
    for (size_t i = 0; i < 16; ++i) {
      EXPECT_NEAR(comb[i], expected_comb[row * 16 + i], 1e-6 * expected_comb[row * 16 + i])
          << row << " " << i;
    }
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_NEAR(comb[k] + comb[4 + k] + comb[8 + k] + comb[12 + k], 1, 1e-5);
    }
  }
}

// Known by heart from the architecture notes: 20 rounds on a small matrix.
TEST(UnitsTest, SinkhornExample) {
  const std::vector<float> mix = {0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
                                  0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 3};
  const std::vector<float> base(24, 0.0f), scale(3, 1.0f);
  const Vector base_view{NumberFormat::kFloat32, 24, reinterpret_cast<const uint8_t*>(base.data())};
  const Vector scale_view{NumberFormat::kFloat32, 3,
                          reinterpret_cast<const uint8_t*>(scale.data())};
  const Matrix unused;
  const HyperParameters parameters{unused, base_view, scale_view, 20, 1e-6f, 1e-6f};
  std::vector<float> pre(4), post(4), comb(16);
  HyperCoefficients(mix.data(), 1, parameters, 4, pre.data(), post.data(), comb.data());
  const float expected[16] = {0.6353400f, 0.1470384f, 0.1470384f, 0.0705823f,
                              0.1222595f, 0.5683099f, 0.2090703f, 0.1003593f,
                              0.1222595f, 0.2090703f, 0.5683099f, 0.1003593f,
                              0.1201400f, 0.0755804f, 0.0755804f, 0.7286982f};
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(comb[i], expected[i], 1e-6);
}

TEST(UnitsTest, Router) {
  std::vector<float> scores = Floats("router.logits");
  const std::vector<float> bias = Floats("router.bias"), expected_scores = Floats("router.scores");
  const std::vector<float> expected_weights = Floats("router.weights_scale_2_5");
  const std::vector<int32_t> expected_experts = Get<int32_t>("router.experts");
  const Vector bias_view{NumberFormat::kFloat32, 16, reinterpret_cast<const uint8_t*>(bias.data())};
  Matrix gate;
  gate.rows = 16;
  const RouteParameters parameters{gate, &bias_view, {}, 4, 2.5f};
  for (size_t row = 0; row < 8; ++row) {
    int32_t experts[4];
    float weights[4];
    RouteRow(scores.data() + row * 16, parameters, nullptr, experts, weights);
    for (size_t i = 0; i < 16; ++i) {
      EXPECT_NEAR(scores[row * 16 + i], expected_scores[row * 16 + i],
                  1e-6 * expected_scores[row * 16 + i]);
    }
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(experts[i], expected_experts[row * 4 + i]);
      EXPECT_NEAR(weights[i], expected_weights[row * 4 + i], 1e-6 * expected_weights[row * 4 + i]);
    }
  }
}

}  // namespace
}  // namespace toaster
