#pragma once

// Kernels of the AVX-512 table that work element by element, and the two halves of attention.
// Included by avx512_bf16.cc only.

#include "backend/cpu/kernels/avx512_vector.h"

namespace toaster::kernels::avx512 {

namespace {

inline void StoreWords(uint16_t* out, __m512i dwords) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(dwords));
}

void RoundRowToBf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < RoundUp(n, 32); i += 16) {
    const __mmask16 inside = i < n ? FirstLanes(Least(n - i, 16)) : FirstLanes(0);
    StoreWords(out + i, RoundToBf16Bits(_mm512_maskz_loadu_ps(inside, x + i)));
  }
}

void QuantizeE4m3(const float* x, int64_t n, uint16_t* out) {
  const __m512i magnitude_bits = _mm512_set1_epi32(0x7FFFFFFF);
  for (int64_t block = 0; block < n; block += 128) {
    // The operand order keeps a NaN out of the maximum, as the scalar comparison does.
    __m512 largest = _mm512_set1_ps(kE4m3AmaxFloor);
    for (int i = 0; i < 128; i += 16) {
      largest = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + block + i)), largest);
    }
    const float amax = _mm512_reduce_max_ps(largest);
    const float scale_value = E8m0ToFloat(BlockScaleByte(amax, kE4m3InverseMax));
    const __m512 scale = _mm512_set1_ps(scale_value);
    const __m512 inverse = _mm512_set1_ps(1.0f / scale_value);
    for (int i = 0; i < 128; i += 16) {
      const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(x + block + i), inverse);
      const __m512i sign = _mm512_andnot_si512(magnitude_bits, AsBits(value));
      const __m512 magnitude = _mm512_min_ps(_mm512_set1_ps(448.0f), _mm512_abs_ps(value));
      // Adding and taking away 1.5 * 2^(e + 20) rounds to three bits behind the leading one, e at
      // least -6.
      const __m512i exponent =
          _mm512_max_epi32(_mm512_and_si512(AsBits(magnitude), _mm512_set1_epi32(0x7F800000)),
                           _mm512_set1_epi32(121 << 23));
      const __m512 grid =
          AsFloats(_mm512_add_epi32(exponent, _mm512_set1_epi32((20 << 23) | (1 << 22))));
      const __m512 rounded = _mm512_sub_ps(_mm512_add_ps(magnitude, grid), grid);
      const __m512 result = _mm512_mul_ps(AsFloats(_mm512_or_si512(AsBits(rounded), sign)), scale);
      StoreWords(out + block + i, RoundToBf16Bits(result));
    }
  }
}

void ExpandEntry(const uint8_t* entry, int64_t plain, int64_t rotary, uint16_t* out) {
  const uint8_t* scales = entry + plain + 2 * rotary;
  for (int64_t i = 0; i < plain; i += 32) {
    const __m512i codes =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(entry + i)));
    const __m512 scale = _mm512_set1_ps(E8m0ToFloat(scales[i / 64]));
    _mm512_storeu_si512(out + i, ScaleBf16(E4m3ToBf16(codes), scale));
  }
  for (int64_t i = 0; i < rotary; i += 32) {
    const __mmask32 inside = FirstWords(Least(rotary - i, 32));
    _mm512_storeu_si512(out + plain + i, _mm512_maskz_loadu_epi16(inside, entry + plain + 2 * i));
  }
}

void SoftmaxNumerators(const float* scores, int64_t n, float maximum, uint16_t* p, float* lanes) {
  __m512 sums = _mm512_loadu_ps(lanes);
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 e = VectorExp(_mm512_sub_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(maximum)));
    StoreWords(p + i, RoundToBf16Bits(e));
    sums = _mm512_add_ps(sums, e);
  }
  _mm512_storeu_ps(lanes, sums);
}

void AccumulateValues(const uint16_t* p, int64_t p_stride, const uint16_t* v, int64_t v_stride,
                      int64_t heads, int64_t slots, int64_t width, float* o, int64_t o_stride) {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t column = 0; column < width; column += 16) {
      __m512 sums = _mm512_loadu_ps(o + h * o_stride + column);
      for (int64_t s = 0; s < slots; s += 2) {
        const uint16_t* even = v + s * v_stride + column;
        const __m512i low =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
        const __m512i high = _mm512_cvtepu16_epi32(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(even + v_stride)));
        const __m512i weights = _mm512_set1_epi32(LoadUnaligned<int32_t>(p + h * p_stride + s));
        sums = AddProducts(sums, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)), weights);
      }
      _mm512_storeu_ps(o + h * o_stride + column, sums);
    }
  }
}

void Swiglu(const float* gate, const float* up, int64_t n, float limit, float weight, float* out) {
  const __m512 high = _mm512_set1_ps(limit), low = _mm512_set1_ps(-limit);
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 inside = FirstLanes(Least(n - i, 16));
    __m512 g = _mm512_maskz_loadu_ps(inside, gate + i);
    __m512 u = _mm512_maskz_loadu_ps(inside, up + i);
    if (limit > 0) {  // the operand order keeps NaN
      g = _mm512_min_ps(high, g);
      u = _mm512_min_ps(high, _mm512_max_ps(low, u));
    }
    const __m512 negative = _mm512_xor_ps(g, _mm512_set1_ps(-0.0f));
    const __m512 sigmoid = _mm512_div_ps(one, _mm512_add_ps(one, VectorExp(negative)));
    const __m512 product = _mm512_mul_ps(_mm512_mul_ps(g, sigmoid), u);
    _mm512_mask_storeu_ps(out + i, inside, _mm512_mul_ps(_mm512_set1_ps(weight), product));
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
