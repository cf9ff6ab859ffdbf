#pragma once

// Products of many tokens by fused multiply-adds instead of vdpbf16ps, for processors on which that
// instruction does half of what two fused multiply-adds do. Included by avx512_fma.cc only.
//
// A lane adds the odd product before the even one, as vdpbf16ps does, so the bits are the same.

#include "backend/cpu/kernels/avx512_matmul.h"
#include "backend/cpu/kernels/blocked_float_product.h"
#include "backend/cpu/kernels/scale_tiles.h"

namespace toaster::kernels::avx512 {

namespace {

/// 32 BF16 numbers as floats: the odd ones, then `stride` floats on the even ones.
inline void StoreSeparated(__m512i values, float* out, int64_t stride) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  _mm512_store_ps(out, AsFloats(_mm512_and_si512(values, high)));
  _mm512_store_ps(out + stride, AsFloats(_mm512_slli_epi32(values, 16)));
}

/// Tiles [step, odd or even, row, 16], inputs [step, odd or even, token, 16], sums [token, row,
/// 16].
struct FusedTiles {
  static constexpr int kGroupRows = 4;
  static constexpr int kGroupTokens = 6;

  static void SeparateInputs(const uint16_t* x, int64_t x_stride, int64_t tokens, int64_t steps,
                             float* out) {
    for (int64_t step = 0; step < steps; ++step, out += 32 * tokens) {
      for (int64_t t = 0; t < tokens; ++t) {
        StoreSeparated(_mm512_load_si512(x + t * x_stride + step * kStep), out + 16 * t,
                       16 * tokens);
      }
    }
  }

  static void Product(const float* weights, const float* inputs, int64_t tokens, int64_t steps,
                      bool first, bool last, float* sums, int64_t rows, float* y, int64_t y_stride,
                      TileFetcher& fetcher) {
    switch (tokens) {
      case 1:
        return Group<1>(weights, inputs, steps, first, last, sums, rows, y, y_stride, fetcher);
      case 2:
        return Group<2>(weights, inputs, steps, first, last, sums, rows, y, y_stride, fetcher);
      case 3:
        return Group<3>(weights, inputs, steps, first, last, sums, rows, y, y_stride, fetcher);
      case 4:
        return Group<4>(weights, inputs, steps, first, last, sums, rows, y, y_stride, fetcher);
      case 5:
        return Group<5>(weights, inputs, steps, first, last, sums, rows, y, y_stride, fetcher);
      default:
        return Group<6>(weights, inputs, steps, first, last, sums, rows, y, y_stride, fetcher);
    }
  }

 private:
  template <int kTokens>
  static void Group(const float* weights, const float* inputs, int64_t steps, bool first, bool last,
                    float* group_sums, int64_t rows, float* y, int64_t y_stride,
                    TileFetcher& fetcher) {
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
      if (half % 2 == 0) fetcher.Step();
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
      StoreSums<kGroupRows, kTokens>(sums, Least(rows, kGroupRows), y, y_stride);
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
};

// Expanders of weights to the tiles of FusedTiles; see blocked_float_product.h. Each row is also
// fetched ahead: its part of the next block of inputs, and at the very beginning the next tile.

constexpr int64_t kTileStep = 32 * FusedTiles::kGroupRows;  // floats of one step of a group

inline float* TileRow(float* tile, int64_t r, int64_t inputs) {
  return tile + r / FusedTiles::kGroupRows * FusedTiles::kGroupRows * inputs +
         r % FusedTiles::kGroupRows * 16;
}

class Bf16Tiles {
 public:
  static constexpr int kBits = 16;
  Bf16Tiles(const WeightRows& w, int64_t /*top*/, int64_t k, int64_t inputs)
      : w_(w), k_(k), inputs_(inputs) {}
  void Expand(int64_t first, int64_t rows, float* tile) const {
    for (int64_t r = 0; r < rows; ++r) {
      const uint8_t* row = w_.data + (first + r) * w_.row_bytes;
      float* out = TileRow(tile, r, inputs_);
      for (int64_t k = k_; k < k_ + inputs_; k += kStep, out += kTileStep) {
        const __mmask32 inside = w_.inner - k >= kStep ? ~__mmask32{0} : FirstWords(w_.inner - k);
        StoreSeparated(_mm512_maskz_loadu_epi16(inside, row + 2 * k), out, kTileStep / 2);
      }
    }
  }

 private:
  const WeightRows& w_;
  int64_t k_, inputs_;
};

class E4m3Tiles {
 public:
  static constexpr int kBits = 8;
  E4m3Tiles(const WeightRows& w, int64_t top, int64_t k, int64_t inputs)
      : w_(w), k_(k), inputs_(inputs) {
    const uint8_t* scales = E4m3Scales(w, top) + k / 128;
    for (int64_t i = 0; i < inputs; i += 128) {
      tables_[i / 128] = E4m3Table(E8m0ToFloat(scales[i / 128]));
    }
  }
  void Expand(int64_t first, int64_t rows, float* tile) const {
    for (int64_t i = 0; i < inputs_; i += 128) {
      const E4m3Table table = tables_[i / 128];
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* codes = w_.data + (first + r) * w_.row_bytes + k_ + i;
        float* out = TileRow(tile, r, inputs_) + i / kStep * kTileStep;
        for (int64_t k = 0; k < 128; k += 2 * kStep, out += 2 * kTileStep) {
          __m512i values[2];
          table.Expand(codes + k, values);
          StoreSeparated(values[0], out, kTileStep / 2);
          StoreSeparated(values[1], out + kTileStep, kTileStep / 2);
        }
      }
    }
  }

 private:
  const WeightRows& w_;
  int64_t k_, inputs_;
  E4m3Table tables_[kFloatBlock / 128];
};

/// kScaledE2m1 as bits of floats.
struct ScaledE2m1Floats {
  alignas(64) uint32_t bits[256][16];
};

constexpr ScaledE2m1Floats MakeScaledE2m1Floats() {
  ScaledE2m1Floats table = {};
  for (int byte = 0; byte < 256; ++byte) {
    for (int code = 0; code < 16; ++code) {
      table.bits[byte][code] = static_cast<uint32_t>(kScaledE2m1.bits[byte][code]) << 16;
    }
  }
  return table;
}

constexpr ScaledE2m1Floats kScaledE2m1Floats = MakeScaledE2m1Floats();

/// Odd and even weights of 32 E2M1 codes.
inline void LoadE2m1(const uint8_t* codes, uint8_t scale, __m512& odd, __m512& even) {
  // vpermps looks at the lowest four bits of each lane.
  const __m512 table = _mm512_load_ps(kScaledE2m1Floats.bits[scale]);
  const __m512i pairs =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  odd = _mm512_permutexvar_ps(_mm512_srli_epi32(pairs, 4), table);
  even = _mm512_permutexvar_ps(pairs, table);
}

class E2m1Tiles {
 public:
  static constexpr int kBits = 4;
  E2m1Tiles(const WeightRows& w, int64_t /*top*/, int64_t k, int64_t inputs)
      : w_(w), k_(k), inputs_(inputs) {}
  void Expand(int64_t first, int64_t rows, float* tile) const {
    for (int64_t r = 0; r < rows; ++r) {
      const uint8_t* codes = w_.data + (first + r) * w_.row_bytes + k_ / 2;
      const uint8_t* scales = w_.scales + (first + r) * (w_.inner / 32) + k_ / 32;
      float* out = TileRow(tile, r, inputs_);
      for (int64_t step = 0; step < inputs_ / kStep; ++step, out += kTileStep) {
        __m512 odd, even;
        LoadE2m1(codes + 16 * step, scales[step], odd, even);
        _mm512_store_ps(out, odd);
        _mm512_store_ps(out + kTileStep / 2, even);
      }
    }
  }

 private:
  const WeightRows& w_;
  int64_t k_, inputs_;
};

// ---- few tokens, E2M1: the expansion is the limit, and that to floats is shorter

/// kRows rows from `row` on with inputs as FusedTiles::SeparateInputs makes them.
template <int kRows, int kTokens>
void FusedStreamTile(const WeightRows& w, int64_t row, const float* inputs, float* y,
                     int64_t y_stride) {
  __m512 sums[kTokens][kRows];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[t][r] = _mm512_setzero_ps();
  }
  const int64_t row_scales = w.inner / kStep;
  const uint8_t* codes = w.data + row * w.row_bytes;
  const uint8_t* scales = w.scales + row * row_scales;
  // As in StreamTile: what the next rows need is fetched in its own order.
  const uint8_t* next = codes + kRows * w.row_bytes;
  for (int64_t step = 0; step < row_scales; ++step) {
    if constexpr (kRows == 4) {
      __builtin_prefetch(next + 64 * step);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      __m512 odd, even;
      LoadE2m1(codes + r * w.row_bytes, scales[r * row_scales], odd, even);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        sums[t][r] = _mm512_fmadd_ps(odd, _mm512_load_ps(inputs + 16 * t), sums[t][r]);
        sums[t][r] = _mm512_fmadd_ps(even, _mm512_load_ps(inputs + 16 * (kTokens + t)), sums[t][r]);
      }
    }
    codes += 16, scales += 1, inputs += 32 * kTokens;
  }
  StoreSums<kRows, kTokens>(sums, kRows, y, y_stride);
}

template <int kTokens>
void FusedStream(const WeightRows& w, const uint16_t* x, int64_t x_stride, float* y,
                 int64_t y_stride, std::byte* scratch) {
  auto* inputs = reinterpret_cast<float*>(scratch);
  FusedTiles::SeparateInputs(x, x_stride, kTokens, w.inner / kStep, inputs);
  int64_t row = 0;
  for (; row + 4 <= w.rows; row += 4) {
    FusedStreamTile<4, kTokens>(w, row, inputs, y + row, y_stride);
  }
  for (; row < w.rows; ++row) FusedStreamTile<1, kTokens>(w, row, inputs, y + row, y_stride);
}

// ---- the table's entries; few tokens of the other formats take vdpbf16ps, whose operands need no
// separating

void FusedMatmulBf16(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewTokens) {
    MatmulBf16(w, x, x_stride, tokens, y, y_stride, scratch);
  } else {
    BlockedFloatProduct<FusedTiles, Bf16Tiles>(w, x, x_stride, tokens, y, y_stride, scratch);
  }
}

constexpr int64_t kFewE4m3Tokens = 3;

void FusedMatmulE4m3(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewE4m3Tokens) {
    MatmulE4m3(w, x, x_stride, tokens, y, y_stride, scratch);
  } else {
    BlockedFloatProduct<FusedTiles, E4m3Tiles>(w, x, x_stride, tokens, y, y_stride, scratch);
  }
}

void FusedMatmulE2m1(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch) {
  switch (tokens) {
    case 1:
      return FusedStream<1>(w, x, x_stride, y, y_stride, scratch);
    case 2:
      return FusedStream<2>(w, x, x_stride, y, y_stride, scratch);
    case 3:
      return FusedStream<3>(w, x, x_stride, y, y_stride, scratch);
    case 4:
      return FusedStream<4>(w, x, x_stride, y, y_stride, scratch);
    default:
      BlockedFloatProduct<FusedTiles, E2m1Tiles>(w, x, x_stride, tokens, y, y_stride, scratch);
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
