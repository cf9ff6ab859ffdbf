#pragma once

// Matrix products of the AVX-512 table. Included by avx512_bf16.cc only.

#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/weight_tables.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kStep = 32;  // BF16 numbers in a vector

struct Bf16Row {
  static void Expand(const WeightRows& w, int64_t row, uint16_t* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    for (int64_t k = 0; k < w.inner; k += kStep) {
      const __mmask32 inside = FirstWords(Least(w.inner - k, kStep));
      _mm512_store_si512(out + k, _mm512_maskz_loadu_epi16(inside, data + 2 * k));
    }
  }
};

struct E4m3Row {
  static void Expand(const WeightRows& w, int64_t row, uint16_t* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    for (int64_t k = 0; k < w.inner; k += kStep) {
      const __m512i codes =
          _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + k)));
      const __m512 scale = _mm512_set1_ps(E8m0ToFloat(w.scales[k / 128]));
      _mm512_store_si512(out + k, ScaleBf16(E4m3ToBf16(codes), scale));
    }
  }
};

struct E2m1Row {
  static void Expand(const WeightRows& w, int64_t row, uint16_t* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    const uint8_t* scales = w.scales + row * (w.inner / 32);
    for (int64_t k = 0; k < w.inner; k += kStep) {
      const __m512i pairs =
          _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data + k / 2)));
      // Five bits of each word choose an entry; the highest of them is noise, so the table stands
      // there twice.
      const __m512i table = _mm512_broadcast_i64x4(
          _mm256_load_si256(reinterpret_cast<const __m256i*>(kScaledE2m1.bits[scales[k / 32]])));
      const __m512i index = _mm512_or_si512(pairs, _mm512_slli_epi32(pairs, 12));
      _mm512_store_si512(out + k, _mm512_permutexvar_epi16(index, table));
    }
  }
};

template <int kRows, int kTokens>
inline void DotTile(const uint16_t* weights, const uint16_t* x, int64_t x_stride, int64_t padded,
                    float* y, int64_t y_stride) {
  __m512 sums[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sums[r][t] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < padded; k += kStep) {
    for (int r = 0; r < kRows; ++r) {
      const __m512i row = _mm512_load_si512(weights + r * padded + k);
      for (int t = 0; t < kTokens; ++t) {
        sums[r][t] = AddProducts(sums[r][t], row, _mm512_load_si512(x + t * x_stride + k));
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) y[t * y_stride + r] = Fold(sums[r][t]);
  }
}

template <typename Format>
void MatmulBf16(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  constexpr int kRowTile = 4;
  const int64_t padded = RoundUp(w.inner, kStep);
  auto* expanded = reinterpret_cast<uint16_t*>(scratch);
  for (int64_t first = 0; first < w.rows; first += kRowTile) {
    const int64_t rows = Least(w.rows - first, kRowTile);
    for (int64_t r = 0; r < rows; ++r) Format::Expand(w, first + r, expanded + r * padded);
    int64_t t = 0;
    for (; rows == kRowTile && t + 4 <= tokens; t += 4) {
      DotTile<4, 4>(expanded, x + t * x_stride, x_stride, padded, y + t * y_stride + first,
                    y_stride);
    }
    for (; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        DotTile<1, 1>(expanded + r * padded, x + t * x_stride, x_stride, padded,
                      y + t * y_stride + first + r, y_stride);
      }
    }
  }
}

void MatmulF32(const WeightRows& w, const float* x, int64_t x_stride, int64_t tokens, float* y,
               int64_t y_stride, std::byte* scratch) {
  for (int64_t r = 0; r < w.rows; ++r) {
    const uint8_t* data = w.data + r * w.row_bytes;
    for (int64_t t = 0; t < tokens; ++t) {
      __m512 sums = _mm512_setzero_ps();
      for (int64_t k = 0; k < w.inner; k += 16) {
        const __mmask16 inside = FirstLanes(Least(w.inner - k, 16));
        sums = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(inside, data + 4 * k),
                               _mm512_load_ps(x + t * x_stride + k), sums);
      }
      y[t * y_stride + r] = Fold(sums);
    }
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
