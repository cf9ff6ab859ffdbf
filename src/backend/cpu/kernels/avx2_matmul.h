#pragma once

// Matrix products of the AVX2 table. Included by avx2.cc only.

#include "backend/cpu/kernels/avx2_vector.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/weight_tables.h"

namespace toaster::kernels::avx2 {

namespace {

constexpr int kStep = 32;  // BF16 numbers that one step over all lanes takes

struct Bf16Row {
  static void Expand(const WeightRows& w, int64_t row, uint16_t* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    for (int64_t k = 0; k < w.inner; ++k) out[k] = LoadUnaligned<uint16_t>(data + 2 * k);
    for (int64_t k = w.inner; k < RoundUp(w.inner, kStep); ++k) out[k] = 0;
  }
};

struct E4m3Row {
  static void Expand(const WeightRows& w, int64_t row, uint16_t* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    for (int64_t k = 0; k < w.inner; k += 8) {
      const __m256 scale = _mm256_set1_ps(E8m0ToFloat(w.scales[k / 128]));
      const __m256 value = _mm256_mul_ps(FromE4m3(data + k), scale);
      StoreBytes16(out + k, LowWords(_mm256_srli_epi32(AsBits(value), 16)));
    }
  }
};

struct E2m1Row {
  static void Expand(const WeightRows& w, int64_t row, uint16_t* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    const uint8_t* scales = w.scales + row * (w.inner / 32);
    for (int64_t k = 0; k < w.inner; k += 2) {
      const uint16_t* values = kScaledE2m1.bits[scales[k / 32]];
      out[k] = values[data[k / 2] & 15];
      out[k + 1] = values[data[k / 2] >> 4];
    }
  }
};

template <int kRows>
inline void DotTile(const uint16_t* weights, const uint16_t* x, int64_t padded, float* y) {
  __m256 low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) low[r] = high[r] = _mm256_setzero_ps();
  for (int64_t k = 0; k < padded; k += kStep) {
    const __m256i x_low = LoadBytes32(x + k), x_high = LoadBytes32(x + k + 16);
    const __m256 x_low_odd = OddOf(x_low), x_low_even = EvenOf(x_low);
    const __m256 x_high_odd = OddOf(x_high), x_high_even = EvenOf(x_high);
    for (int r = 0; r < kRows; ++r) {
      const __m256i w_low = LoadBytes32(weights + r * padded + k);
      const __m256i w_high = LoadBytes32(weights + r * padded + k + 16);
      low[r] = _mm256_fmadd_ps(OddOf(w_low), x_low_odd, low[r]);
      low[r] = _mm256_fmadd_ps(EvenOf(w_low), x_low_even, low[r]);
      high[r] = _mm256_fmadd_ps(OddOf(w_high), x_high_odd, high[r]);
      high[r] = _mm256_fmadd_ps(EvenOf(w_high), x_high_even, high[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) y[r] = Fold(low[r], high[r]);
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
    for (int64_t t = 0; t < tokens; ++t) {
      float* out = y + t * y_stride + first;
      if (rows == kRowTile) {
        DotTile<kRowTile>(expanded, x + t * x_stride, padded, out);
      } else {
        for (int64_t r = 0; r < rows; ++r) {
          DotTile<1>(expanded + r * padded, x + t * x_stride, padded, out + r);
        }
      }
    }
  }
}

void MatmulF32(const WeightRows& w, const float* x, int64_t x_stride, int64_t tokens, float* y,
               int64_t y_stride, std::byte* scratch) {
  for (int64_t r = 0; r < w.rows; ++r) {
    const auto* data = reinterpret_cast<const float*>(w.data + r * w.row_bytes);
    for (int64_t t = 0; t < tokens; ++t) {
      __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
      for (int64_t k = 0; k < w.inner; k += 16) {
        const float* row = x + t * x_stride + k;
        low = _mm256_fmadd_ps(_mm256_maskload_ps(data + k, FirstLanes(w.inner - k)),
                              _mm256_load_ps(row), low);
        high = _mm256_fmadd_ps(_mm256_maskload_ps(data + k + 8, FirstLanes(w.inner - k - 8)),
                               _mm256_load_ps(row + 8), high);
      }
      y[t * y_stride + r] = Fold(low, high);
    }
  }
}

}  // namespace

}  // namespace toaster::kernels::avx2
