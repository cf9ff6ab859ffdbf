#pragma once

// Steps on AVX-512 vectors that several kernels share. Included by avx512_bf16.cc only.

#include <immintrin.h>

#include <cstdint>

#include "tensor/elementary.h"
#include "tensor/number_formats.h"

namespace toaster::kernels::avx512 {

namespace {

inline __m512 AsFloats(__m512i bits) { return _mm512_castsi512_ps(bits); }
inline __m512i AsBits(__m512 x) { return _mm512_castps_si512(x); }

/// Lanes below `count` (0..16).
inline __mmask16 FirstLanes(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
inline __mmask32 FirstWords(int64_t count) {
  return static_cast<__mmask32>((uint64_t{1} << count) - 1);
}

inline int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

/// sums + odd products + even products, in this order.
inline __m512 AddProducts(__m512 sums, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)b);
}

/// 16 BF16 numbers as floats.
inline __m512 FromBf16(__m256i bits) {
  return AsFloats(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

/// FloatToBf16, the result in the low half of each lane. vcvtneps2bf16 is no help: it flushes
/// denormals.
inline __m512i RoundToBf16Bits(__m512 x) {
  const __m512i bits = AsBits(x);
  const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7FFF))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
}

inline __m512 RoundToBf16(__m512 x) { return AsFloats(_mm512_slli_epi32(RoundToBf16Bits(x), 16)); }

/// RoundToBf16 for the results of arithmetic, which are never denormal here: vcvtneps2bf16 differs
/// only in flushing those.
inline __m512 RoundResultToBf16(__m512 x) { return FromBf16((__m256i)_mm512_cvtneps_pbh(x)); }

/// FoldLanes of one vector.
inline float Fold(__m512 lanes) {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/// Exp of tensor/elementary.h.
inline __m512 VectorExp(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(kLog2E)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2High), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2Low), r);
  __m512 p = _mm512_set1_ps(kExpPolynomial[5]);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPolynomial[4]));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPolynomial[3]));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPolynomial[2]));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPolynomial[1]));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPolynomial[0]));
  const __m512 y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  const __m512i whole = _mm512_cvtps_epi32(n);
  const __m512i half = _mm512_srai_epi32(whole, 1);
  const __m512i bias = _mm512_set1_epi32(127);
  const __m512 scale_a = AsFloats(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  const __m512 scale_b =
      AsFloats(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(whole, half), bias), 23));
  __m512 result = _mm512_mul_ps(_mm512_mul_ps(y, scale_a), scale_b);
  const __mmask16 over = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpOverflow), _CMP_GT_OQ);
  const __mmask16 under = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpUnderflow), _CMP_LT_OQ);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  result = _mm512_mask_mov_ps(result, over, AsFloats(_mm512_set1_epi32(0x7F800000)));
  result = _mm512_mask_mov_ps(result, under, _mm512_setzero_ps());
  return _mm512_mask_mov_ps(result, nan, x);
}

/// 32 BF16 numbers times a power of two, by float multiplications: flushes and overflows as the
/// scalar product does. Inputs that need no rounding afterwards.
inline __m512i ScaleBf16(__m512i bits, __m512 scale) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  const __m512 odd = _mm512_mul_ps(AsFloats(_mm512_and_si512(bits, high)), scale);
  const __m512 even = _mm512_mul_ps(AsFloats(_mm512_slli_epi32(bits, 16)), scale);
  return _mm512_or_si512(_mm512_and_si512(AsBits(odd), high), _mm512_srli_epi32(AsBits(even), 16));
}

}  // namespace

}  // namespace toaster::kernels::avx512
