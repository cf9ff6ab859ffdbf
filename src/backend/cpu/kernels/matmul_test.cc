#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "backend/cpu/kernels/test_support.h"
#include "backend/cpu/kernels/weight_tables.h"
#include "tensor/summation.h"

namespace toaster::kernels {
namespace {

enum class Format { kBf16, kE4m3, kE2m1 };

int64_t RowBytes(Format format, int64_t inner) {
  switch (format) {
    case Format::kBf16:
      return 2 * inner;
    case Format::kE4m3:
      return inner;
    case Format::kE2m1:
      return inner / 2;
  }
  return 0;
}

// A matrix at an odd address, its last row ending where the memory ends, and what its numbers are
// by definition.
struct TestMatrix {
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> scales;
  std::vector<std::vector<uint16_t>> rows;  // BF16 bits
  WeightRows view;

  TestMatrix(Format format, int64_t count, int64_t inner, int64_t gap, Temper temper,
             TestRandom& random) {
    const int64_t offset = 1 + random.Below(3);
    const int64_t row_bytes = RowBytes(format, inner) + gap;
    bytes.resize(offset + count * row_bytes - gap);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Bits());
    const int64_t tiles = (count + kScaleTileRows - 1) / kScaleTileRows;
    const int64_t scale_count =
        format == Format::kE2m1 ? count * (inner / 32) : tiles * (inner / 128);
    scales.resize(format == Format::kBf16 ? 0 : scale_count);
    for (uint8_t& scale : scales) scale = Scale(temper, random);
    rows.resize(count);
    for (int64_t r = 0; r < count; ++r) {
      uint8_t* data = bytes.data() + offset + r * row_bytes;
      rows[r].resize(inner);
      for (int64_t k = 0; k < inner; ++k) {
        switch (format) {
          case Format::kBf16:
            rows[r][k] = random.Bf16(temper);
            std::memcpy(data + 2 * k, &rows[r][k], 2);
            break;
          case Format::kE4m3:
            if (temper != Temper::kAll && (data[k] & 0x7F) == 0x7F) data[k] ^= 1;
            if (temper == Temper::kAll && (data[k] & 0x7F) == 0x7F && random.Below(64)) data[k] = 0;
            rows[r][k] =
                FloatToBf16(E4m3ToFloat(data[k]) *
                            E8m0ToFloat(scales[r / kScaleTileRows * (inner / 128) + k / 128]));
            break;
          case Format::kE2m1: {
            const uint8_t code = k % 2 ? data[k / 2] >> 4 : data[k / 2] & 15;
            rows[r][k] =
                FloatToBf16(E2m1ToFloat(code) * E8m0ToFloat(scales[r * (inner / 32) + k / 32]));
            break;
          }
        }
      }
    }
    view = {.data = bytes.data() + offset,
            .row_bytes = row_bytes,
            .rows = count,
            .inner = inner,
            .scales = scales.data()};
  }

  static uint8_t Scale(Temper temper, TestRandom& random) {
    switch (temper) {
      case Temper::kOrdinary:
        return static_cast<uint8_t>(random.Between(115, 130));
      case Temper::kWide:
        return static_cast<uint8_t>(random.Between(1, 246));
      case Temper::kEdges: {
        constexpr uint8_t kEdge[] = {0,   1,   2,   3,   8,   9,   10,  11, 127,
                                     245, 246, 247, 248, 251, 252, 253, 254};
        return random.OneOf(kEdge);
      }
      case Temper::kAll:
        return static_cast<uint8_t>(random.Below(40) ? random.Bits() : 255);
    }
    return 0;
  }
};

class MatmulTest : public KernelTest {
 protected:
  auto Product(Format format) const {
    return format == Format::kBf16   ? table().matmul_bf16
           : format == Format::kE4m3 ? table().matmul_e4m3
                                     : table().matmul_e2m1;
  }

  void Check(Format format, int64_t rows, int64_t inner, int64_t tokens, Temper weights,
             Temper inputs, uint64_t seed) {
    TestRandom random(seed);
    const TestMatrix matrix(format, rows, inner, random.Below(2) * random.Below(70), weights,
                            random);
    const int64_t stride = (inner + 31) / 32 * 32 + 32 * random.Below(3);
    AlignedArray<uint16_t> x(tokens * stride);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < inner; ++k) x[t * stride + k] = random.Bf16(inputs);
    }
    const int64_t y_stride = rows + random.Below(5);
    std::vector<float> y(tokens * y_stride, -12345.0f);
    AlignedArray<std::byte> scratch(MatmulScratchBytes(inner));
    Product(format)(matrix.view, x.data(), stride, tokens, y.data(), y_stride, scratch.data());
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        const float expected = DotBf16(matrix.rows[r].data(), x.data() + t * stride, inner);
        ASSERT_TRUE(SameFloat(expected, y[t * y_stride + r]))
            << "row " << r << " of " << rows << ", token " << t << " of " << tokens << ", inner "
            << inner << ", seed " << seed;
      }
      for (int64_t r = rows; r < y_stride; ++r) ASSERT_EQ(y[t * y_stride + r], -12345.0f);
    }
  }

  // All pairs of tempers, sizes drawn around the edges of tiles.
  void CheckMany(Format format, uint64_t seed) {
    TestRandom random(seed);
    for (int round = 0; round < 6; ++round) {
      for (const Temper weights : kTempers) {
        for (const Temper inputs : kTempers) {
          const int64_t inner =
              format == Format::kBf16 ? random.Between(1, 300) : 128 * random.Between(1, 5);
          Check(format, random.Between(1, 60), inner, random.Between(1, 40), weights, inputs,
                ++seed);
        }
      }
    }
  }

  void CheckEveryTokenCount(Format format, uint64_t seed) {
    for (int64_t tokens = 1; tokens <= 40; ++tokens) {
      Check(format, 19, 256, tokens, Temper::kOrdinary, Temper::kOrdinary, ++seed);
    }
  }

  void CheckEveryRowCount(Format format, uint64_t seed) {
    for (int64_t rows = 1; rows <= 70; ++rows) {
      for (const int64_t tokens : {1, 3, 13}) {
        Check(format, rows, 128, tokens, Temper::kOrdinary, Temper::kOrdinary, ++seed);
      }
    }
  }

  // As long as the rows of the models, where partial sums may be kept in pieces.
  void CheckLongRows(Format format, uint64_t seed) {
    for (const int64_t inner : {896, 1024, 1152, 2048, 4096, 7168, 16384}) {
      for (const int64_t tokens : {1, 2, 9, 21}) {
        Check(format, 7, inner, tokens, Temper::kOrdinary, Temper::kOrdinary, ++seed);
      }
    }
  }

  // More rows and tokens than a panel takes, with inputs of one block and of two.
  void CheckPanels(Format format, uint64_t seed) {
    struct Size {
      int64_t rows, inner, tokens;
    };
    for (const Size size :
         {Size{131, 256, 245}, {131, 512, 130}, {131, 640, 125}, {5, 128, 490}, {300, 640, 2}}) {
      Check(format, size.rows, size.inner, size.tokens, Temper::kOrdinary, Temper::kOrdinary,
            ++seed);
    }
  }
};

TEST_P(MatmulTest, Bf16) { CheckMany(Format::kBf16, 1000); }
TEST_P(MatmulTest, E4m3) { CheckMany(Format::kE4m3, 2000); }
TEST_P(MatmulTest, E2m1) { CheckMany(Format::kE2m1, 3000); }

TEST_P(MatmulTest, TokenCounts) {
  CheckEveryTokenCount(Format::kBf16, 4000);
  CheckEveryTokenCount(Format::kE4m3, 4100);
  CheckEveryTokenCount(Format::kE2m1, 4200);
}

TEST_P(MatmulTest, RowCounts) {
  CheckEveryRowCount(Format::kBf16, 5000);
  CheckEveryRowCount(Format::kE4m3, 5300);
  CheckEveryRowCount(Format::kE2m1, 5600);
}

TEST_P(MatmulTest, LongRows) {
  CheckLongRows(Format::kBf16, 6000);
  CheckLongRows(Format::kE4m3, 6100);
  CheckLongRows(Format::kE2m1, 6200);
}

TEST_P(MatmulTest, Panels) {
  CheckPanels(Format::kBf16, 6300);
  CheckPanels(Format::kE4m3, 6400);
  CheckPanels(Format::kE2m1, 6500);
}

// One weight and one input that are not zero: each code with each scale byte by itself.
TEST_P(MatmulTest, EveryCodeWithEveryScale) {
  constexpr int64_t kInner = 128;
  const int64_t tokens_tried[] = {1, 12};
  AlignedArray<std::byte> scratch(MatmulScratchBytes(kInner));
  AlignedArray<uint16_t> x(12 * kInner);
  for (int t = 0; t < 12; ++t) x[t * kInner + 5] = FloatToBf16(1.0f);
  for (int byte = 0; byte < 256; ++byte) {
    std::vector<uint8_t> e4m3(256 * kInner), e2m1(16 * kInner / 2);
    const std::vector<uint8_t> scales(16 * kInner / 32, static_cast<uint8_t>(byte));
    for (int code = 0; code < 256; ++code) e4m3[code * kInner + 5] = static_cast<uint8_t>(code);
    for (int code = 0; code < 16; ++code) {
      e2m1[code * kInner / 2 + 2] = static_cast<uint8_t>(code << 4);
    }
    const WeightRows e4m3_rows = {e4m3.data(), kInner, 256, kInner, scales.data()};
    const WeightRows e2m1_rows = {e2m1.data(), kInner / 2, 16, kInner, scales.data()};
    for (const int64_t tokens : tokens_tried) {
      std::vector<float> y(tokens * 256);
      table().matmul_e4m3(e4m3_rows, x.data(), kInner, tokens, y.data(), 256, scratch.data());
      for (int code = 0; code < 256; ++code) {
        std::vector<uint16_t> row(kInner, FloatToBf16(E8m0ToFloat(static_cast<uint8_t>(byte)) * 0));
        row[5] = FloatToBf16(E4m3ToFloat(static_cast<uint8_t>(code)) *
                             E8m0ToFloat(static_cast<uint8_t>(byte)));
        ASSERT_TRUE(SameFloat(DotBf16(row.data(), x.data(), kInner), y[code]))
            << "E4M3 " << code << " " << byte;
      }
      table().matmul_e2m1(e2m1_rows, x.data(), kInner, tokens, y.data(), 256, scratch.data());
      for (int code = 0; code < 16; ++code) {
        std::vector<uint16_t> row(kInner, FloatToBf16(E8m0ToFloat(static_cast<uint8_t>(byte)) * 0));
        row[5] = FloatToBf16(E2m1ToFloat(static_cast<uint8_t>(code)) *
                             E8m0ToFloat(static_cast<uint8_t>(byte)));
        ASSERT_TRUE(SameFloat(DotBf16(row.data(), x.data(), kInner), y[code]))
            << "E2M1 " << code << " " << byte;
      }
    }
  }
}

TEST_P(MatmulTest, Float32) {
  TestRandom random(7000);
  for (int round = 0; round < 120; ++round) {
    const Temper temper = kTempers[round % 4];
    const int64_t rows = random.Between(1, 30), tokens = random.Between(1, 20);
    const int64_t inner = round % 10 == 0 ? random.Between(1000, 9000) : random.Between(1, 200);
    const int64_t stride = (inner + 31) / 32 * 32, y_stride = rows + random.Below(3);
    std::vector<uint8_t> bytes(1 + rows * inner * 4);
    std::vector<float> weights(rows * inner);
    for (float& weight : weights) weight = random.Float(temper);
    std::memcpy(bytes.data() + 1, weights.data(), rows * inner * 4);
    AlignedArray<float> x(tokens * stride);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < inner; ++k) x[t * stride + k] = random.Float(temper);
    }
    std::vector<float> y(tokens * y_stride, -12345.0f);
    AlignedArray<std::byte> scratch(MatmulScratchBytes(inner));
    const WeightRows w = {bytes.data() + 1, inner * 4, rows, inner, nullptr};
    table().matmul_f32(w, x.data(), stride, tokens, y.data(), y_stride, scratch.data());
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        const float expected = DotFloat(weights.data() + r * inner, x.data() + t * stride, inner);
        ASSERT_TRUE(SameFloat(expected, y[t * y_stride + r]))
            << "row " << r << ", token " << t << ", inner " << inner << ", round " << round;
      }
      for (int64_t r = rows; r < y_stride; ++r) ASSERT_EQ(y[t * y_stride + r], -12345.0f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, MatmulTest, ::testing::ValuesIn(RunnableTables()), TableName);

TEST(WeightTablesTest, FollowTheDefinitions) {
  const ScopedFlushDenormals flush;
  for (int byte = 0; byte < 256; ++byte) {
    for (int code = 0; code < 16; ++code) {
      const float value = E2m1ToFloat(static_cast<uint8_t>(code));
      EXPECT_TRUE(SameBf16(FloatToBf16(value * E8m0ToFloat(static_cast<uint8_t>(byte))),
                           kScaledE2m1.bits[byte][code]))
          << byte << " " << code;
    }
  }
  for (int code = 0; code < 128; ++code) {
    EXPECT_TRUE(
        SameBf16(FloatToBf16(E4m3ToFloat(static_cast<uint8_t>(code))), kE4m3Magnitudes.bits[code]))
        << code;
  }
}

}  // namespace
}  // namespace toaster::kernels
