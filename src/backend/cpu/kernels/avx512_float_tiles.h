#pragma once

// Products of many tokens by fused multiply-adds instead of vdpbf16ps, for processors on which that
// instruction does half of what two fused multiply-adds do. Included by avx512_fma.cc only.
//
// A tile of weights is expanded to floats in `scratch`, odd and even ones apart, and so are the
// inputs of six tokens at a time; each load of a weight serves six tokens, each of an input four
// rows. Sums wait in memory from one block of inputs to the next. A lane adds the odd product
// before the even one, as vdpbf16ps does, so the bits are the same.

#include "backend/cpu/kernels/avx512_matmul.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int64_t kBlock = 1024;  // inputs; those of six tokens stay in the first-level cache
constexpr int64_t kGroupSums = kGroupTokens * kGroupRows * 16;

static_assert(kGroupSums * 4 <= 512 * kGroupRows && kGroupTokens * kBlock * 4 <= kMatmulInputBytes,
              "MatmulScratchBytes has no room");

/// 32 BF16 numbers as floats: the odd ones, then `stride` floats on the even ones.
inline void StoreSeparated(__m512i values, float* out, int64_t stride) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  _mm512_store_ps(out, AsFloats(_mm512_and_si512(values, high)));
  _mm512_store_ps(out + stride, AsFloats(_mm512_slli_epi32(values, 16)));
}

// Rows [first, first + rows) as groups of four rows [step, odd or even, row, 16]. Rows that are
// missing in the last group stay as they are.

template <typename Cursor>
void SeparateRowwise(const WeightRows& w, int64_t first, int64_t rows, float* tile) {
  const int64_t padded = RoundUp(w.inner, kStep);
  for (int64_t r = 0; r < rows; ++r) {
    Cursor weights(w, first + r);
    float* out = tile + r / kGroupRows * kGroupRows * padded + r % kGroupRows * 16;
    int64_t k = 0;
    for (; k + kStep <= w.inner; k += kStep, weights.Advance()) {
      __m512i values;
      weights.Load(0, &values);
      StoreSeparated(values, out + k * kGroupRows, 16 * kGroupRows);
    }
    if constexpr (std::is_same_v<Cursor, Bf16Cursor>) {
      if (k < w.inner) {
        StoreSeparated(weights.LoadLast(0, FirstWords(w.inner - k)), out + k * kGroupRows,
                       16 * kGroupRows);
      }
    }
  }
}

void SeparateE4m3(const WeightRows& w, int64_t first, int64_t rows, float* tile) {
  for (int64_t block = 0; block < w.inner / 128; ++block) {
    const E4m3Table table(E8m0ToFloat(w.scales[block]));
    for (int64_t r = 0; r < rows; ++r) {
      const uint8_t* codes = w.data + (first + r) * w.row_bytes + block * 128;
      float* out =
          tile + (r / kGroupRows * w.inner + block * 128) * kGroupRows + r % kGroupRows * 16;
      for (int64_t k = 0; k < 128; k += 64) {
        __m512i values[2];
        table.Expand(codes + k, values);
        StoreSeparated(values[0], out + k * kGroupRows, 16 * kGroupRows);
        StoreSeparated(values[1], out + (k + kStep) * kGroupRows, 16 * kGroupRows);
      }
    }
  }
}

/// The inputs of some tokens as [step, odd or even, token, 16].
void SeparateInputs(const uint16_t* x, int64_t x_stride, int64_t tokens, int64_t steps,
                    float* out) {
  for (int64_t step = 0; step < steps; ++step, out += 32 * tokens) {
    for (int64_t t = 0; t < tokens; ++t) {
      StoreSeparated(_mm512_load_si512(x + t * x_stride + step * kStep), out + 16 * t, 16 * tokens);
    }
  }
}

/// `steps` more steps of the sums of one group, or the first ones; the last ones go to y, for the
/// first `rows` rows.
template <int kTokens>
void FusedGroup(const float* weights, const float* inputs, int64_t steps, bool first, bool last,
                float* group_sums, int64_t rows, float* y, int64_t y_stride) {
  __m512 sums[kTokens][kGroupRows];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kGroupRows; ++r) {
      sums[t][r] =
          first ? _mm512_setzero_ps() : _mm512_load_ps(group_sums + (t * kGroupRows + r) * 16);
    }
  }
  for (int64_t half = 0; half < 2 * steps; ++half) {  // odd, even, odd, ...
    __m512 x[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) x[t] = _mm512_load_ps(inputs + 16 * t);
#pragma GCC unroll 8
    for (int r = 0; r < kGroupRows; ++r) {
      const __m512 weight = _mm512_load_ps(weights + 16 * r);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) sums[t][r] = _mm512_fmadd_ps(weight, x[t], sums[t][r]);
    }
    inputs += 16 * kTokens, weights += 16 * kGroupRows;
  }
  if (last) {
    StoreSums<kGroupRows, kTokens>(sums, rows, y, y_stride);
    return;
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kGroupRows; ++r) {
      _mm512_store_ps(group_sums + (t * kGroupRows + r) * 16, sums[t][r]);
    }
  }
}

using FusedGroupFunction = void (*)(const float*, const float*, int64_t, bool, bool, float*,
                                    int64_t, float*, int64_t);
constexpr FusedGroupFunction kFusedGroups[kGroupTokens] = {
    FusedGroup<1>, FusedGroup<2>, FusedGroup<3>, FusedGroup<4>, FusedGroup<5>, FusedGroup<6>};

template <typename Separate>
void FusedProduct(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                  float* y, int64_t y_stride, std::byte* scratch, Separate separate) {
  const int64_t padded = RoundUp(w.inner, kStep);
  const int64_t tile_rows = MatmulTileRows(w.rows, padded * 4);
  auto* tile = reinterpret_cast<float*>(scratch);
  float* sums = tile + tile_rows * padded;
  float* inputs = sums + tile_rows / kGroupRows * kGroupSums;
  for (int64_t first = 0; first < w.rows; first += tile_rows) {
    const int64_t rows = Least(w.rows - first, tile_rows);
    separate(w, first, rows, tile);
    for (int64_t t = 0; t < tokens; t += kGroupTokens) {
      const int64_t count = Least(tokens - t, kGroupTokens);
      const FusedGroupFunction fused = kFusedGroups[count - 1];
      for (int64_t k = 0; k < padded; k += kBlock) {
        const int64_t steps = Least(padded - k, kBlock) / kStep;
        SeparateInputs(x + t * x_stride + k, x_stride, count, steps, inputs);
        for (int64_t r = 0; r < rows; r += kGroupRows) {
          fused(tile + r * padded + k * kGroupRows, inputs, steps, k == 0, k + kBlock >= padded,
                sums + r / kGroupRows * kGroupSums, Least(rows - r, kGroupRows),
                y + t * y_stride + first + r, y_stride);
        }
      }
    }
  }
}

// ---- the table's entries; few tokens take vdpbf16ps, whose operands need no separating

void FusedMatmulBf16(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewTokens) {
    MatmulBf16(w, x, x_stride, tokens, y, y_stride, scratch);
  } else {
    FusedProduct(w, x, x_stride, tokens, y, y_stride, scratch, SeparateRowwise<Bf16Cursor>);
  }
}

void FusedMatmulE2m1(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewTokens) {
    MatmulE2m1(w, x, x_stride, tokens, y, y_stride, scratch);
  } else {
    FusedProduct(w, x, x_stride, tokens, y, y_stride, scratch, SeparateRowwise<E2m1Cursor>);
  }
}

void FusedMatmulE4m3(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewTokens) {
    MatmulE4m3(w, x, x_stride, tokens, y, y_stride, scratch);
  } else {
    FusedProduct(w, x, x_stride, tokens, y, y_stride, scratch, SeparateE4m3);
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
