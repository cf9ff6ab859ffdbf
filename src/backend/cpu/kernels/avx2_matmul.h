#pragma once

// Matrix products of the AVX2 table. Included by avx2.cc only.
//
// Few tokens: the weights are read once, expanded to floats in registers and used at once; memory
// or the expansion is the limit. Many tokens: see blocked_float_product.h; the multiply-adds are
// the limit. Each lane adds in the same order in both, so the bits are the same.

#include "backend/cpu/kernels/avx2_expand.h"
#include "backend/cpu/kernels/avx2_vector.h"
#include "backend/cpu/kernels/blocked_float_product.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/scale_tiles.h"

namespace toaster::kernels::avx2 {

namespace {

/// FoldLanes of four sums whose lanes i and i + 8 are already added.
inline __m128 FoldFour(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 ab =
      _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  const __m256 cd =
      _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
  const __m256d first = _mm256_castps_pd(ab), second = _mm256_castps_pd(cd);
  // Halves: two lanes of a, two of c; two of b, two of d.
  const __m256 two = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(first, second)),
                                   _mm256_castpd_ps(_mm256_unpackhi_pd(first, second)));
  const __m256 one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
  const __m256i order = _mm256_setr_epi32(0, 4, 2, 6, 0, 4, 2, 6);
  return _mm256_castps256_ps128(_mm256_permutevar8x32_ps(one, order));
}

inline void Prefetch(const uint8_t* address) {
  _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1);
}

// ---- few tokens, BF16 and E4M3

/// 32 BF16 weights.
struct Bf16Stream {
  static constexpr int kBytes = 64;
  static Separated Load(const uint8_t* data) { return Bf16Row::FromBf16Pairs(data); }
};

/// 32 E4M3 weights times 2^-8, their scales left to the input; no NaN.
struct E4m3Stream {
  static constexpr int kBytes = 32;
  static Separated Load(const uint8_t* data) { return FromE4m3Pairs(LoadBytes32(data)); }
};

template <typename Stream, int kRows, int kTokens>
void StreamTile(const WeightRows& w, int64_t first, const float* x, float* y, int64_t y_stride) {
  constexpr bool kMayBeNan = Stream::kBytes == 32;
  const int64_t padded = RoundUp(w.inner, kStep);
  __m256 low[kRows][kTokens], high[kRows][kTokens];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) low[r][t] = high[r][t] = _mm256_setzero_ps();
  }
  const auto add = [&](int r, const Separated& weights, int64_t k) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const float* inputs = x + t * padded + k;
      low[r][t] = _mm256_fmadd_ps(weights.part[0], _mm256_load_ps(inputs), low[r][t]);
      low[r][t] = _mm256_fmadd_ps(weights.part[1], _mm256_load_ps(inputs + 8), low[r][t]);
      high[r][t] = _mm256_fmadd_ps(weights.part[2], _mm256_load_ps(inputs + 16), high[r][t]);
      high[r][t] = _mm256_fmadd_ps(weights.part[3], _mm256_load_ps(inputs + 24), high[r][t]);
    }
  };
  const uint8_t* data = w.data + first * w.row_bytes;
  // The memory system likes one stream best: what later rows need is fetched in its own order.
  const uint8_t* next = data + RowsAhead(kRows, w.row_bytes) * w.row_bytes;
  __m256i largest = _mm256_setzero_si256();
  int64_t k = 0;
  for (; k + kStep <= w.inner; k += kStep, data += Stream::kBytes) {
#pragma GCC unroll 4
    for (int i = 0; i < kRows * Stream::kBytes / 64; ++i) Prefetch(next + 64 * i);
    next += kRows * Stream::kBytes;
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      add(r, Stream::Load(data + r * w.row_bytes), k);
      if constexpr (kMayBeNan) {  // without its sign the NaN code is the largest
        const __m256i codes = LoadBytes32(data + r * w.row_bytes);
        largest = _mm256_max_epu8(largest, _mm256_add_epi8(codes, codes));
      }
    }
  }
  if constexpr (!kMayBeNan) {
    if (k < w.inner) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        add(r, Bf16Row(w, first + r).At(k), k);
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) y[t * y_stride + r] = Fold(low[r][t], high[r][t]);
  }
  const __m256i nan_code = _mm256_set1_epi8(static_cast<char>(0xFE));
  const __m256i is_nan = _mm256_cmpeq_epi8(largest, nan_code);
  if (kMayBeNan && !_mm256_testz_si256(is_nan, is_nan)) {
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* codes = w.data + (first + r) * w.row_bytes;
      for (int64_t i = 0; i < w.inner; ++i) {
        if ((codes[i] & 0x7F) != 0x7F) continue;
        for (int t = 0; t < kTokens; ++t) y[t * y_stride + r] = E4m3ToFloat(0x7F);
        break;
      }
    }
  }
}

template <typename Stream, int kTokens>
void StreamRows(const WeightRows& w, const float* x, float* y, int64_t y_stride) {
  constexpr int kRows = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;
  int64_t r = 0;
  for (; r + kRows <= w.rows; r += kRows) {
    StreamTile<Stream, kRows, kTokens>(w, r, x, y + r, y_stride);
  }
  for (; r < w.rows; ++r) StreamTile<Stream, 1, kTokens>(w, r, x, y + r, y_stride);
}

template <typename Stream>
void StreamProduct(const WeightRows& w, const float* x, int64_t tokens, float* y,
                   int64_t y_stride) {
  switch (tokens) {
    case 1:
      return StreamRows<Stream, 1>(w, x, y, y_stride);
    case 2:
      return StreamRows<Stream, 2>(w, x, y, y_stride);
    case 3:
      return StreamRows<Stream, 3>(w, x, y, y_stride);
    default:
      return StreamRows<Stream, 4>(w, x, y, y_stride);
  }
}

// ---- few tokens, E2M1

inline __m256i TwoRows(const uint8_t* first, const uint8_t* second) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(LoadBytes16(first)), LoadBytes16(second),
                                 1);
}

/// 32 weights of two rows: quad q holds the lanes 4q to 4q + 3 of the first row, then of the
/// second.
struct RowPair {
  __m256 odd[4], even[4];
};

inline RowPair LoadRowPair(const uint8_t* data, int64_t row_bytes, const uint8_t* scales,
                           int64_t row_scales) {
  const uint8_t a = scales[0], b = scales[row_scales];
  const __m256i high = TwoRows(kScaledE2m1Bytes.high[a], kScaledE2m1Bytes.high[b]);
  const __m256i low = TwoRows(kScaledE2m1Bytes.low[a], kScaledE2m1Bytes.low[b]);
  const __m256i bytes = TwoRows(data, data + row_bytes);
  const __m256i nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
  const __m256i codes[2] = {_mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble),
                            _mm256_and_si256(bytes, nibble)};
  RowPair pair;
#pragma GCC unroll 2
  for (int parity = 0; parity < 2; ++parity) {
    const __m256i high_bytes = _mm256_shuffle_epi8(high, codes[parity]);
    const __m256i low_bytes = _mm256_shuffle_epi8(low, codes[parity]);
    const __m256i first = _mm256_unpacklo_epi8(low_bytes, high_bytes);
    const __m256i second = _mm256_unpackhi_epi8(low_bytes, high_bytes);
    __m256* quads = parity == 0 ? pair.odd : pair.even;
    quads[0] = AsFloats(_mm256_unpacklo_epi16(zero, first));
    quads[1] = AsFloats(_mm256_unpackhi_epi16(zero, first));
    quads[2] = AsFloats(_mm256_unpacklo_epi16(zero, second));
    quads[3] = AsFloats(_mm256_unpackhi_epi16(zero, second));
  }
  return pair;
}

inline __m256 Twice(const float* x) {
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(x));
}

/// Two rows; without `second` the other one is read in its place and its sums are dropped.
template <int kTokens>
void E2m1Pair(const WeightRows& w, int64_t first, bool second, const float* x, float* y,
              int64_t y_stride) {
  __m256 sums[kTokens][4];
#pragma GCC unroll 3
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) sums[t][q] = _mm256_setzero_ps();
  }
  const int64_t row_bytes = second ? w.row_bytes : 0;
  const int64_t row_scales = second ? w.inner / 32 : 0;
  const uint8_t* data = w.data + first * w.row_bytes;
  const uint8_t* scales = w.scales + first * (w.inner / 32);
  const uint8_t* next = data + RowsAhead(2, w.row_bytes) * w.row_bytes;
  for (int64_t k = 0; k < w.inner; k += kStep, data += 16, ++scales) {
    if (k % 64 == 0) Prefetch(next + k);
    const RowPair pair = LoadRowPair(data, row_bytes, scales, row_scales);
#pragma GCC unroll 3
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const float* inputs = x + t * w.inner + k + q / 2 * 16 + q % 2 * 4;
        sums[t][q] = _mm256_fmadd_ps(pair.odd[q], Twice(inputs), sums[t][q]);
        sums[t][q] = _mm256_fmadd_ps(pair.even[q], Twice(inputs + 8), sums[t][q]);
      }
    }
  }
#pragma GCC unroll 3
  for (int t = 0; t < kTokens; ++t) {
    // Lanes i and i + 8, then i and i + 4, of both rows.
    const __m256 four =
        _mm256_add_ps(_mm256_add_ps(sums[t][0], sums[t][2]), _mm256_add_ps(sums[t][1], sums[t][3]));
    const __m256 two = _mm256_add_ps(four, _mm256_permute_ps(four, 0x4E));
    const __m256 one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
    y[t * y_stride] = _mm256_cvtss_f32(one);
    if (second) y[t * y_stride + 1] = _mm_cvtss_f32(_mm256_extractf128_ps(one, 1));
  }
}

template <int kTokens>
void E2m1Rows(const WeightRows& w, const float* x, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < w.rows; r += 2) {
    E2m1Pair<kTokens>(w, r, r + 1 < w.rows, x, y + r, y_stride);
  }
}

// ---- many tokens

/// Adds one row's weights times each token's inputs. The innermost loop needs all 16 registers:
/// twelve sums, three inputs, one weight. GCC 12 takes more and spills sums, so it is written out.
template <int kTokens, int kRows>
inline void AddRow(const float* weights, const __m256* inputs, int r,
                   __m256 (&sums)[kTokens][kRows]) {
  if constexpr (kTokens == 3) {
    __m256 weight;
    asm volatile(
        "vmovaps %4, %3\n\t"
        "vfmadd231ps %5, %3, %0\n\t"
        "vfmadd231ps %6, %3, %1\n\t"
        "vfmadd231ps %7, %3, %2"
        : "+x"(sums[0][r]), "+x"(sums[1][r]), "+x"(sums[2][r]), "=&x"(weight)
        : "m"(*reinterpret_cast<const __m256*>(weights)), "x"(inputs[0]), "x"(inputs[1]),
          "x"(inputs[2]));
  } else {
    const __m256 weight = _mm256_load_ps(weights);
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; ++t) {
      sums[t][r] = _mm256_fmadd_ps(weight, inputs[t], sums[t][r]);
    }
  }
}

/// For BlockedFloatProduct. The lanes 0-7 and 8-15 are summed one after the other: tiles [half,
/// step, odd or even, row, 8], inputs [half, step, odd or even, token, 8], sums [half, token, row,
/// 8].
struct FloatTiles {
  static constexpr int kGroupRows = 4;
  static constexpr int kGroupTokens = 3;

  static void SeparateInputs(const uint16_t* x, int64_t x_stride, int64_t tokens, int64_t steps,
                             float* out) {
    for (int half = 0; half < 2; ++half) {
      for (int64_t step = 0; step < steps; ++step, out += 16 * tokens) {
        for (int64_t t = 0; t < tokens; ++t) {
          const __m256i pairs = LoadBytes32(x + t * x_stride + step * kStep + 16 * half);
          _mm256_store_ps(out + 8 * t, OddOf(pairs));
          _mm256_store_ps(out + 8 * (tokens + t), EvenOf(pairs));
        }
      }
    }
  }

  static void Product(const float* weights, const float* inputs, int64_t tokens, int64_t steps,
                      bool first, bool last, float* sums, int64_t rows, float* y, int64_t y_stride,
                      TileFetcher& fetcher) {
    const auto group = tokens == 3 ? Half<3> : tokens == 2 ? Half<2> : Half<1>;
    const int64_t half_sums = tokens * kGroupRows * 8;
    group(weights, inputs, steps, first, sums, fetcher);
    group(weights + steps * 16 * kGroupRows, inputs + steps * 16 * tokens, steps, first,
          sums + half_sums, fetcher);
    if (!last) return;
    for (int64_t t = 0; t < tokens; ++t) {
      __m256 both[kGroupRows];
      for (int r = 0; r < kGroupRows; ++r) {
        const float* low = sums + (t * kGroupRows + r) * 8;
        both[r] = _mm256_add_ps(_mm256_load_ps(low), _mm256_load_ps(low + half_sums));
      }
      const __m128 results = FoldFour(both[0], both[1], both[2], both[3]);
      if (rows >= kGroupRows) {
        _mm_storeu_ps(y + t * y_stride, results);
      } else {
        alignas(16) float all[kGroupRows];
        _mm_store_ps(all, results);
        for (int64_t r = 0; r < rows; ++r) y[t * y_stride + r] = all[r];
      }
    }
  }

 private:
  template <int kTokens>
  static void Half(const float* weights, const float* inputs, int64_t steps, bool first,
                   float* half_sums, TileFetcher& fetcher) {
    __m256 sums[kTokens][kGroupRows];
#pragma GCC unroll 3
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < kGroupRows; ++r) {
        sums[t][r] =
            first ? _mm256_setzero_ps() : _mm256_load_ps(half_sums + (t * kGroupRows + r) * 8);
      }
    }
    for (int64_t i = 0; i < 2 * steps; ++i) {  // odd, even, odd, ...
      if (i % 4 == 0) fetcher.Step();          // half of the steps in each half
      __m256 x[kTokens];
#pragma GCC unroll 3
      for (int t = 0; t < kTokens; ++t) x[t] = _mm256_load_ps(inputs + 8 * t);
#pragma GCC unroll 4
      for (int r = 0; r < kGroupRows; ++r) {
        AddRow<kTokens, kGroupRows>(weights + 8 * r, x, r, sums);
      }
      inputs += 8 * kTokens, weights += 8 * kGroupRows;
    }
#pragma GCC unroll 3
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < kGroupRows; ++r) {
        _mm256_store_ps(half_sums + (t * kGroupRows + r) * 8, sums[t][r]);
      }
    }
  }
};

/// The expander of weights that `Row` reads.
template <typename Row>
class RowTiles {
 public:
  static constexpr int kBits = Row::kBits;
  RowTiles(const WeightRows& w, int64_t /*top*/, int64_t k, int64_t inputs)
      : w_(w), k_(k), inputs_(inputs) {}
  void Expand(int64_t first, int64_t rows, float* tile) const {
    constexpr int64_t kRows = FloatTiles::kGroupRows;
    for (int64_t r = 0; r < rows; ++r) {
      const Row row(w_, first + r);
      float* low = tile + r / kRows * kRows * inputs_ + r % kRows * 8;
      float* high = low + inputs_ / 2 * kRows;
      for (int64_t k = k_; k < k_ + inputs_; k += kStep) {
        const Separated weights = row.At(k);
        _mm256_store_ps(low, weights.part[0]);
        _mm256_store_ps(low + 8 * kRows, weights.part[1]);
        _mm256_store_ps(high, weights.part[2]);
        _mm256_store_ps(high + 8 * kRows, weights.part[3]);
        low += 16 * kRows, high += 16 * kRows;
      }
    }
  }

 private:
  const WeightRows& w_;
  int64_t k_, inputs_;
};

template <typename Row>
void BlockedProduct(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                    float* y, int64_t y_stride, std::byte* scratch) {
  BlockedFloatProduct<FloatTiles, RowTiles<Row>>(w, x, x_stride, tokens, y, y_stride, scratch);
}

// ---- the table's entries

constexpr int64_t kFewTokens = 4;
constexpr int64_t kFewTokensE2m1 = 3;

/// Whether the products of few tokens are the faster ones for BF16 and E4M3: from three tokens on
/// the inputs have to fit the first-level cache, since each row goes through all of them.
inline bool AreFew(int64_t tokens, int64_t inner) {
  return tokens <= 2 || (tokens <= kFewTokens && tokens * inner * 4 <= (32 << 10));
}

/// Inputs as the few-token products want them, [tokens, padded] in scratch; null if their scales do
/// not allow it.
inline const float* SeparateInputs(const WeightRows& w, const uint16_t* x, int64_t x_stride,
                                   int64_t tokens, bool scaled, std::byte* scratch) {
  auto* inputs = reinterpret_cast<float*>(scratch);
  const int64_t padded = RoundUp(w.inner, kStep);
  for (int64_t t = 0; t < tokens; ++t) {
    if (!SeparateInput(x + t * x_stride, padded, scaled ? w.scales : nullptr,
                       inputs + t * padded)) {
      return nullptr;
    }
  }
  return inputs;
}

void MatmulBf16(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  if (AreFew(tokens, w.inner)) {
    const float* inputs = SeparateInputs(w, x, x_stride, tokens, false, scratch);
    StreamProduct<Bf16Stream>(w, inputs, tokens, y, y_stride);
  } else {
    BlockedProduct<Bf16Row>(w, x, x_stride, tokens, y, y_stride, scratch);
  }
}

/// A few tokens' products with rows of one tile of scales, which the inputs take up.
void FewE4m3(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
             int64_t y_stride, std::byte* scratch) {
  const float* inputs = SeparateInputs(w, x, x_stride, tokens, true, scratch);
  if (inputs != nullptr) {
    StreamProduct<E4m3Stream>(w, inputs, tokens, y, y_stride);
  } else {
    BlockedProduct<E4m3Row>(w, x, x_stride, tokens, y, y_stride, scratch);
  }
}

void MatmulE4m3(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  const auto multiply = AreFew(tokens, w.inner) ? ByScaleTiles<FewE4m3> : BlockedProduct<E4m3Row>;
  multiply(w, x, x_stride, tokens, y, y_stride, scratch);
}

void MatmulE2m1(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  if (tokens > kFewTokensE2m1) {
    BlockedProduct<E2m1Row>(w, x, x_stride, tokens, y, y_stride, scratch);
    return;
  }
  const float* inputs = SeparateInputs(w, x, x_stride, tokens, false, scratch);
  switch (tokens) {
    case 1:
      return E2m1Rows<1>(w, inputs, y, y_stride);
    case 2:
      return E2m1Rows<2>(w, inputs, y, y_stride);
    default:
      return E2m1Rows<3>(w, inputs, y, y_stride);
  }
}

template <int kRows, int kTokens>
void FloatTile(const WeightRows& w, int64_t first, const float* x, int64_t x_stride, float* y,
               int64_t y_stride) {
  __m256 low[kRows][kTokens], high[kRows][kTokens];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) low[r][t] = high[r][t] = _mm256_setzero_ps();
  }
  const uint8_t* data = w.data + first * w.row_bytes;
  const auto add = [&](int r, __m256 low_weights, __m256 high_weights, int64_t k) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const float* inputs = x + t * x_stride + k;
      low[r][t] = _mm256_fmadd_ps(low_weights, _mm256_load_ps(inputs), low[r][t]);
      high[r][t] = _mm256_fmadd_ps(high_weights, _mm256_load_ps(inputs + 8), high[r][t]);
    }
  };
  int64_t k = 0;
  for (; k + 16 <= w.inner; k += 16) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* row = data + r * w.row_bytes + 4 * k;
      add(r, AsFloats(LoadBytes32(row)), AsFloats(LoadBytes32(row + 32)), k);
    }
  }
  if (k < w.inner) {
    const __m256i low_inside = FirstLanes(w.inner - k), high_inside = FirstLanes(w.inner - k - 8);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const auto* row = reinterpret_cast<const float*>(data + r * w.row_bytes) + k;
      add(r, _mm256_maskload_ps(row, low_inside), _mm256_maskload_ps(row + 8, high_inside), k);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) y[t * y_stride + r] = Fold(low[r][t], high[r][t]);
  }
}

template <int kRows, int kTokens>
void FloatProduct(const WeightRows& w, const float* x, int64_t x_stride, float* y,
                  int64_t y_stride) {
  int64_t r = 0;
  for (; r + kRows <= w.rows; r += kRows) {
    FloatTile<kRows, kTokens>(w, r, x, x_stride, y + r, y_stride);
  }
  for (; r < w.rows; ++r) FloatTile<1, kTokens>(w, r, x, x_stride, y + r, y_stride);
}

void MatmulF32(const WeightRows& w, const float* x, int64_t x_stride, int64_t tokens, float* y,
               int64_t y_stride, std::byte* /*scratch*/) {
  int64_t t = 0;
  for (; t + 3 <= tokens; t += 3) {
    FloatProduct<2, 3>(w, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
  }
  for (; t < tokens; ++t) {
    FloatProduct<4, 1>(w, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
  }
}

}  // namespace

}  // namespace toaster::kernels::avx2
