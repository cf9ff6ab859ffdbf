#pragma once

// Steps on AVX2 vectors that several kernels share. Included by avx2.cc only.

#include <immintrin.h>

#include <cstdint>

#include "tensor/elementary.h"
#include "tensor/number_formats.h"

namespace toaster::kernels::avx2 {

namespace {

inline __m256 AsFloats(__m256i bits) { return _mm256_castsi256_ps(bits); }
inline __m256i AsBits(__m256 x) { return _mm256_castps_si256(x); }
inline __m128i LoadBytes16(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
inline __m256i LoadBytes32(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void StoreBytes16(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }

inline void StoreBytes32(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

inline int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

/// Mask of the lanes below `count` for _mm256_maskload_ps; any count.
inline __m256i FirstLanes(int64_t count) {
  const int limit = static_cast<int>(count < 0 ? 0 : Least(count, 8));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(limit), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// 8 BF16 numbers as floats.
inline __m256 FromBf16(__m128i bits) {
  return AsFloats(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
/// The odd and the even ones of 16 BF16 numbers as floats.
inline __m256 OddOf(__m256i bits) {
  return AsFloats(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
}
inline __m256 EvenOf(__m256i bits) { return AsFloats(_mm256_slli_epi32(bits, 16)); }

/// FloatToBf16, the result in the low half of each lane.
inline __m256i RoundToBf16Bits(__m256 x) {
  const __m256i bits = AsBits(x);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i even = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7FFF))), 16);
  const __m256i nan = AsBits(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
}

inline __m256 RoundToBf16(__m256 x) { return AsFloats(_mm256_slli_epi32(RoundToBf16Bits(x), 16)); }

/// The low halves of 8 lanes as 8 words.
inline __m128i LowWords(__m256i lanes) {
  return _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
}

/// The sum of all lanes.
inline int32_t Sum(__m128i lanes) {
  const __m128i two = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xB1)));
}
inline int32_t Sum(__m256i lanes) {
  return Sum(_mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1)));
}

/// Doubled E2M1 values by their codes, for vpshufb.
inline __m128i DoubledE2m1() {
  return _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
}

/// FoldLanes of lanes 0-7 and 8-15.
inline float Fold(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/// Exp of tensor/elementary.h.
inline __m256 VectorExp(__m256 x) {
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(kLog2E)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2High), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2Low), r);
  __m256 p = _mm256_set1_ps(kExpPolynomial[5]);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpPolynomial[4]));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpPolynomial[3]));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpPolynomial[2]));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpPolynomial[1]));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpPolynomial[0]));
  const __m256 y = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 scale_a = AsFloats(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 scale_b =
      AsFloats(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  __m256 result = _mm256_mul_ps(_mm256_mul_ps(y, scale_a), scale_b);
  const __m256 over = _mm256_cmp_ps(x, _mm256_set1_ps(kExpOverflow), _CMP_GT_OQ);
  const __m256 under = _mm256_cmp_ps(x, _mm256_set1_ps(kExpUnderflow), _CMP_LT_OQ);
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  result = _mm256_blendv_ps(result, AsFloats(_mm256_set1_epi32(0x7F800000)), over);
  result = _mm256_andnot_ps(under, result);
  return _mm256_blendv_ps(result, x, nan);
}

/// 8 E4M3 codes as floats, exact: as half-precision numbers they are 2^-8 of their value.
inline __m256 FromE4m3(const uint8_t* codes) {
  const __m128i words = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  const __m128i half =
      _mm_and_si128(_mm_slli_epi16(words, 7), _mm_set1_epi16(static_cast<int16_t>(0xBF80)));
  const __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
  const __m128i nan =
      _mm_cmpeq_epi16(_mm_and_si128(words, _mm_set1_epi16(0x7F)), _mm_set1_epi16(0x7F));
  return _mm256_or_ps(value, AsFloats(_mm256_cvtepi16_epi32(nan)));
}

}  // namespace

}  // namespace toaster::kernels::avx2
