#pragma once

// Matrix products of the AVX-512 table. Included by avx512_bf16.cc only.
//
// Few tokens: the weights are read once, expanded in registers and used at once; memory is the
// limit. Many tokens: a tile of weights is expanded to `scratch`, which stays in the second-level
// cache, and each load of it serves six tokens; vdpbf16ps is the limit. A sum has its 16 lanes in
// one register from the first to the last input in both, so the bits are the same.

#include <type_traits>

#include "backend/cpu/kernels/avx512_expand.h"
#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/even_groups.h"
#include "backend/cpu/kernels/fetch_ahead.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/scale_tiles.h"

namespace toaster::kernels::avx512 {

namespace {

/// FoldLanes of four rows and two tokens at once, stored to y[0..3] and second[0..3].
inline void FoldEight(const __m512* first_sums, const __m512* second_sums, float* y,
                      float* second) {
  __m512 eight[4];  // lane i plus lane i + 8: the first token's 8, the second's 8
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    eight[r] = _mm512_add_ps(_mm512_shuffle_f32x4(first_sums[r], second_sums[r], 0x44),
                             _mm512_shuffle_f32x4(first_sums[r], second_sums[r], 0xEE));
  }
  __m512 four[2];  // in each quarter: row 0 or 2 of the first, of the second token, row 1 or 3 ...
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r) {
    four[r] = _mm512_add_ps(_mm512_shuffle_f32x4(eight[r], eight[r + 2], 0x88),
                            _mm512_shuffle_f32x4(eight[r], eight[r + 2], 0xDD));
  }
  // Quarters: first token rows 0 and 1, second token rows 0 and 1, first rows 2 and 3, second.
  const __m512d a = _mm512_castps_pd(four[0]), b = _mm512_castps_pd(four[1]);
  const __m512 two = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  const __m512 one = _mm512_add_ps(_mm512_moveldup_ps(two), _mm512_movehdup_ps(two));
  const __m512i order = _mm512_setr_epi32(0, 2, 8, 10, 4, 6, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256 results = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, one));
  _mm_storeu_ps(y, _mm256_castps256_ps128(results));
  _mm_storeu_ps(second, _mm256_extractf128_ps(results, 1));
}

/// Folds and stores the sums of kRows rows and kTokens tokens; the first `rows` of them count.
template <int kRows, int kTokens>
void StoreSums(const __m512 (&sums)[kTokens][kRows], int64_t rows, float* y, int64_t y_stride) {
  if constexpr (kRows % 4 == 0) {
    if (rows == kRows) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; t += 2) {
        const int second = t + 1 < kTokens ? t + 1 : t;
#pragma GCC unroll 2
        for (int r = 0; r < kRows; r += 4) {
          FoldEight(sums[t] + r, sums[second] + r, y + t * y_stride + r, y + second * y_stride + r);
        }
      }
      return;
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) y[t * y_stride + r] = Fold(sums[t][r]);
    }
  }
}

// ---- few tokens

/// Rows `first` to `first + kRows` with `inputs` [step, token, 32].
template <typename Cursor, int kRows, int kTokens>
void StreamTile(const WeightRows& w, int64_t first, const uint16_t* inputs, float* y,
                int64_t y_stride) {
  constexpr int kAdvance = kStep * Cursor::kVectors;
  __m512 sums[kTokens][kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[t][r] = _mm512_setzero_ps();
  }
  Cursor weights(w, first);
  // The memory system likes one stream best: what later rows need is fetched in its own order.
  const int64_t later = first + RowsAhead(kRows, w.row_bytes);
  const char* next = reinterpret_cast<const char*>(w.data + later * w.row_bytes);
  int64_t k = 0;
  for (; k + kAdvance <= w.inner; k += kAdvance, inputs += kAdvance * kTokens, weights.Advance()) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows * Cursor::kBytes / 64; ++i) {
      _mm_prefetch(next + 64 * i, _MM_HINT_T1);
    }
    next += kRows * Cursor::kBytes;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      __m512i values[Cursor::kVectors];
      weights.Load(r, values);
#pragma GCC unroll 4
      for (int i = 0; i < Cursor::kVectors; ++i) {
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          sums[t][r] = AddProducts(sums[t][r], values[i],
                                   _mm512_load_si512(inputs + (i * kTokens + t) * kStep));
        }
      }
    }
  }
  if constexpr (std::is_same_v<Cursor, Bf16Cursor>) {
    if (k < w.inner) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512i values = weights.LoadLast(r, FirstWords(w.inner - k));
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          sums[t][r] = AddProducts(sums[t][r], values, _mm512_load_si512(inputs + t * kStep));
        }
      }
    }
  }
  StoreSums<kRows, kTokens>(sums, kRows, y, y_stride);
}

template <typename Cursor, int kTokens>
void StreamProduct(const WeightRows& w, const uint16_t* inputs, float* y, int64_t y_stride) {
  constexpr int kRows = kTokens <= 6 ? 4 : 3;
  int64_t r = 0;
  for (; r + kRows <= w.rows; r += kRows) {
    StreamTile<Cursor, kRows, kTokens>(w, r, inputs, y + r, y_stride);
  }
  for (; r < w.rows; ++r) StreamTile<Cursor, 1, kTokens>(w, r, inputs, y + r, y_stride);
}

constexpr int64_t kFewTokens = 8;

/// `inputs` are [step, token, 32].
template <typename Cursor>
void StreamProduct(const WeightRows& w, const uint16_t* inputs, int64_t tokens, float* y,
                   int64_t y_stride) {
  switch (tokens) {
    case 1:
      return StreamProduct<Cursor, 1>(w, inputs, y, y_stride);
    case 2:
      return StreamProduct<Cursor, 2>(w, inputs, y, y_stride);
    case 3:
      return StreamProduct<Cursor, 3>(w, inputs, y, y_stride);
    case 4:
      return StreamProduct<Cursor, 4>(w, inputs, y, y_stride);
    case 5:
      return StreamProduct<Cursor, 5>(w, inputs, y, y_stride);
    case 6:
      return StreamProduct<Cursor, 6>(w, inputs, y, y_stride);
    case 7:
      return StreamProduct<Cursor, 7>(w, inputs, y, y_stride);
    default:
      return StreamProduct<Cursor, 8>(w, inputs, y, y_stride);
  }
}

/// Inputs of so many tokens, 32 a step, as [step, token, 32].
inline void InterleaveInputs(const uint16_t* x, int64_t x_stride, int64_t tokens, int64_t steps,
                             uint16_t* out) {
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t t = 0; t < tokens; ++t, out += kStep) {
      _mm512_store_si512(out, _mm512_load_si512(x + t * x_stride + step * kStep));
    }
  }
}

/// The same of the inputs of a product, in scratch or, if there is one token, where they are.
inline const uint16_t* Interleaved(const WeightRows& w, const uint16_t* x, int64_t x_stride,
                                   int64_t tokens, std::byte* scratch) {
  if (tokens == 1) return x;
  auto* inputs = reinterpret_cast<uint16_t*>(scratch);
  InterleaveInputs(x, x_stride, tokens, RoundUp(w.inner, kStep) / kStep, inputs);
  return inputs;
}

// ---- many tokens

constexpr int kGroupRows = 4;
constexpr int kGroupTokens = 6;
constexpr int64_t kTokensOfSmallTiles = 64;
constexpr int64_t kSmallTileRows = 8;

/// One group of expanded rows [steps, 4, 32] with kTokens tokens. Meanwhile fetches the row at
/// `next` into the second-level cache, and what `fetcher` is to fetch.
template <int kTokens, typename Fetcher>
void GroupProduct(const uint16_t* weights, int64_t rows, const uint16_t* x, int64_t x_stride,
                  int64_t padded, const uint16_t* next, Fetcher& fetcher, float* y,
                  int64_t y_stride) {
  __m512 sums[kTokens][kGroupRows];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kGroupRows; ++r) sums[t][r] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < padded; k += kStep) {
    _mm_prefetch(reinterpret_cast<const char*>(next + k), _MM_HINT_T1);
    fetcher.Step();
    __m512i row[kGroupRows];
#pragma GCC unroll 8
    for (int r = 0; r < kGroupRows; ++r) {
      row[r] = _mm512_load_si512(weights + k * kGroupRows + r * kStep);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m512i inputs = _mm512_load_si512(x + t * x_stride + k);
#pragma GCC unroll 8
      for (int r = 0; r < kGroupRows; ++r) sums[t][r] = AddProducts(sums[t][r], row[r], inputs);
    }
  }
  StoreSums<kGroupRows, kTokens>(sums, rows, y, y_stride);
}

template <typename Fetcher>
void GroupProduct(const uint16_t* weights, int64_t rows, const uint16_t* x, int64_t x_stride,
                  int64_t padded, int64_t tokens, const uint16_t* next, Fetcher& fetcher, float* y,
                  int64_t y_stride) {
  switch (tokens) {
    case 1:
      return GroupProduct<1>(weights, rows, x, x_stride, padded, next, fetcher, y, y_stride);
    case 2:
      return GroupProduct<2>(weights, rows, x, x_stride, padded, next, fetcher, y, y_stride);
    case 3:
      return GroupProduct<3>(weights, rows, x, x_stride, padded, next, fetcher, y, y_stride);
    case 4:
      return GroupProduct<4>(weights, rows, x, x_stride, padded, next, fetcher, y, y_stride);
    case 5:
      return GroupProduct<5>(weights, rows, x, x_stride, padded, next, fetcher, y, y_stride);
    default:
      return GroupProduct<6>(weights, rows, x, x_stride, padded, next, fetcher, y, y_stride);
  }
}

template <typename Expand>
void BlockedProduct(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                    float* y, int64_t y_stride, std::byte* scratch, Expand expand) {
  const int64_t padded = RoundUp(w.inner, kStep);
  // A tile serves all tokens before the next one is expanded. A large one spares the inputs of many
  // tokens ways from the third-level cache; those of fewer stay in the second level, and it is the
  // weights that have to be fetched ahead.
  const bool small_tiles = tokens <= kTokensOfSmallTiles;
  const int64_t tile_rows = small_tiles ? kSmallTileRows : MatmulTileRows(w.rows, padded * 2);
  auto* tile = reinterpret_cast<uint16_t*>(scratch);
  const EvenGroups groups(tokens, kGroupTokens);
  for (int64_t first = 0; first < w.rows; first += tile_rows) {
    const int64_t rows = Least(w.rows - first, tile_rows);
    expand(w, first, rows, tile);
    const int64_t next_tile = first + rows, row_groups = (rows + kGroupRows - 1) / kGroupRows;
    RowFetcher<kSecondLevel> fetcher(w.data + next_tile * w.row_bytes, w.row_bytes,
                                     Least(w.rows - next_tile, tile_rows), w.row_bytes,
                                     groups.groups * row_groups * (padded / kStep));
    NoFetcher no_fetcher;
    int64_t t = 0;
    for (int64_t g = 0; g < groups.groups; t += groups.Size(g++)) {
      const int64_t count = groups.Size(g);
      for (int64_t r = 0; r < rows; r += kGroupRows) {
        // Each group of rows brings one of the next tokens nearer.
        const int64_t next = t + count + r / kGroupRows;
        const bool wanted = r / kGroupRows < kGroupTokens && next < tokens;
        const auto multiply = [&](auto& meanwhile) {
          GroupProduct(tile + r * padded, Least(rows - r, kGroupRows), x + t * x_stride, x_stride,
                       padded, count, x + (wanted ? next : t) * x_stride, meanwhile,
                       y + t * y_stride + first + r, y_stride);
        };
        if (small_tiles) {
          multiply(fetcher);
        } else {
          multiply(no_fetcher);
        }
      }
    }
  }
}

// ---- the table's entries

void MatmulBf16(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewTokens) {
    StreamProduct<Bf16Cursor>(w, Interleaved(w, x, x_stride, tokens, scratch), tokens, y, y_stride);
  } else {
    BlockedProduct(w, x, x_stride, tokens, y, y_stride, scratch,
                   ExpandRowwise<kGroupRows, Bf16Cursor>);
  }
}

[[maybe_unused]] void MatmulE2m1(const WeightRows& w, const uint16_t* x, int64_t x_stride,
                                 int64_t tokens, float* y, int64_t y_stride, std::byte* scratch) {
  if (tokens <= kFewTokens) {
    StreamProduct<E2m1Cursor>(w, Interleaved(w, x, x_stride, tokens, scratch), tokens, y, y_stride);
  } else {
    BlockedProduct(w, x, x_stride, tokens, y, y_stride, scratch,
                   ExpandRowwise<kGroupRows, E2m1Cursor>);
  }
}

/// The product with rows of one tile of scales.
void MatmulE4m3Tile(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                    float* y, int64_t y_stride, std::byte* scratch) {
  bool scaled = tokens <= kFewTokens;
  auto* inputs = reinterpret_cast<uint16_t*>(scratch);
  for (int64_t t = 0; scaled && t < tokens; ++t) {
    scaled = ScaleInput(w, x + t * x_stride, inputs + t * kStep, tokens * kStep);
  }
  if (scaled) {
    StreamProduct<UnscaledE4m3Cursor>(w, inputs, tokens, y, y_stride);
  } else {
    BlockedProduct(w, x, x_stride, tokens, y, y_stride, scratch, ExpandE4m3<kGroupRows>);
  }
}

void MatmulE4m3(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  ByScaleTiles<MatmulE4m3Tile>(w, x, x_stride, tokens, y, y_stride, scratch);
}

template <int kRows, int kTokens>
void FloatTile(const WeightRows& w, int64_t first, const float* x, int64_t x_stride, float* y,
               int64_t y_stride) {
  __m512 sums[kTokens][kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[t][r] = _mm512_setzero_ps();
  }
  const uint8_t* data = w.data + first * w.row_bytes;
  for (int64_t k = 0; k < w.inner; k += 16) {
    const __mmask16 inside = FirstLanes(Least(w.inner - k, 16));
    __m512 row[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      row[r] = _mm512_maskz_loadu_ps(inside, data + r * w.row_bytes + 4 * k);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m512 inputs = _mm512_load_ps(x + t * x_stride + k);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sums[t][r] = _mm512_fmadd_ps(row[r], inputs, sums[t][r]);
    }
  }
  StoreSums<kRows, kTokens>(sums, kRows, y, y_stride);
}

template <int kTokens>
void FloatProduct(const WeightRows& w, const float* x, int64_t x_stride, float* y,
                  int64_t y_stride) {
  constexpr int kRows = 4;
  int64_t r = 0;
  for (; r + kRows <= w.rows; r += kRows) {
    FloatTile<kRows, kTokens>(w, r, x, x_stride, y + r, y_stride);
  }
  for (; r < w.rows; ++r) FloatTile<1, kTokens>(w, r, x, x_stride, y + r, y_stride);
}

void MatmulF32(const WeightRows& w, const float* x, int64_t x_stride, int64_t tokens, float* y,
               int64_t y_stride, std::byte* /*scratch*/) {
  int64_t t = 0;
  for (; t + 4 <= tokens; t += 4) {
    FloatProduct<4>(w, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
  }
  for (; t < tokens; ++t) {
    FloatProduct<1>(w, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
