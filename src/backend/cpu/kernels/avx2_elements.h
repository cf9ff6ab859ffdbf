#pragma once

// Kernels of the AVX2 table that work element by element. Included by avx2.cc only.

#include "backend/cpu/kernels/avx2_vector.h"

namespace toaster::kernels::avx2 {

namespace {

void RoundRowToBf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < RoundUp(n, 32); i += 8) {
    const __m256 values = _mm256_maskload_ps(x + i, FirstLanes(n - i));
    StoreBytes16(out + i, LowWords(RoundToBf16Bits(values)));
  }
}

inline float LargestLane(__m256 x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

void QuantizeE4m3(const float* x, int64_t n, uint16_t* out) {
  const __m256 sign_bit = _mm256_set1_ps(-0.0f);
  for (int64_t block = 0; block < n; block += 128) {
    // The operand order keeps a NaN out of the maximum, as the scalar comparison does.
    __m256 largest = _mm256_set1_ps(kE4m3AmaxFloor);
    for (int i = 0; i < 128; i += 8) {
      largest = _mm256_max_ps(_mm256_andnot_ps(sign_bit, _mm256_loadu_ps(x + block + i)), largest);
    }
    const float scale_value = E8m0ToFloat(BlockScaleByte(LargestLane(largest), kE4m3InverseMax));
    const __m256 scale = _mm256_set1_ps(scale_value);
    const __m256 inverse = _mm256_set1_ps(1.0f / scale_value);
    for (int i = 0; i < 128; i += 8) {
      const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + block + i), inverse);
      const __m256 magnitude =
          _mm256_min_ps(_mm256_set1_ps(448.0f), _mm256_andnot_ps(sign_bit, value));
      // Adding and taking away 1.5 * 2^(e + 20) rounds to three bits behind the leading one, e at
      // least -6.
      const __m256i exponent =
          _mm256_max_epi32(_mm256_and_si256(AsBits(magnitude), _mm256_set1_epi32(0x7F800000)),
                           _mm256_set1_epi32(121 << 23));
      const __m256 grid =
          AsFloats(_mm256_add_epi32(exponent, _mm256_set1_epi32((20 << 23) | (1 << 22))));
      const __m256 rounded = _mm256_sub_ps(_mm256_add_ps(magnitude, grid), grid);
      const __m256 result =
          _mm256_mul_ps(_mm256_or_ps(rounded, _mm256_and_ps(value, sign_bit)), scale);
      StoreBytes16(out + block + i, LowWords(RoundToBf16Bits(result)));
    }
  }
}

void Hadamard(float* x, int64_t n) {
  const __m256 factor =
      _mm256_set1_ps(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(n))));
  for (int64_t i = 0; i < n; i += 8) {
    // x + its partner, and for the second of a pair its partner - x.
    __m256 y = _mm256_loadu_ps(x + i);
    __m256 swapped = _mm256_permute_ps(y, 0xB1);
    y = _mm256_blend_ps(_mm256_add_ps(y, swapped), _mm256_sub_ps(swapped, y), 0xAA);
    swapped = _mm256_permute_ps(y, 0x4E);
    y = _mm256_blend_ps(_mm256_add_ps(y, swapped), _mm256_sub_ps(swapped, y), 0xCC);
    swapped = _mm256_permute2f128_ps(y, y, 0x01);
    y = _mm256_blend_ps(_mm256_add_ps(y, swapped), _mm256_sub_ps(swapped, y), 0xF0);
    _mm256_storeu_ps(x + i, y);
  }
  for (int64_t half = 8; half < n; half *= 2) {
    const __m256 last = 2 * half == n ? factor : _mm256_set1_ps(1.0f);
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; i += 8) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + half);
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_add_ps(a, b), last));
        _mm256_storeu_ps(x + i + half, _mm256_mul_ps(_mm256_sub_ps(a, b), last));
      }
    }
  }
}

/// The E2M1 codes of 8 numbers, one in each lane; as FloatToE2m1.
inline __m256i ToE2m1(__m256 x) {
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  const auto count = [&](__m256i codes, __m256 mask) {
    return _mm256_sub_epi32(codes, AsBits(mask));
  };
  __m256i codes = _mm256_and_si256(_mm256_srli_epi32(AsBits(x), 28), _mm256_set1_epi32(8));
  codes = count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(0.25f), _CMP_GT_OQ));
  codes = count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(0.75f), _CMP_GE_OQ));
  codes = count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(1.25f), _CMP_GT_OQ));
  codes = count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(1.75f), _CMP_GE_OQ));
  codes = count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(2.5f), _CMP_GT_OQ));
  codes = count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(3.5f), _CMP_GE_OQ));
  return count(codes, _mm256_cmp_ps(magnitude, _mm256_set1_ps(5.0f), _CMP_GT_OQ));
}

void EncodeKey(const float* x, int64_t width, uint8_t* key) {
  for (int64_t block = 0; block < width / 32; ++block) {
    const float* values = x + 32 * block;
    // The operand order keeps a NaN out of the maximum, as the scalar comparison does.
    __m256 largest = _mm256_set1_ps(kE2m1AmaxFloor);
    for (int i = 0; i < 32; i += 8) {
      largest = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(values + i)),
                              largest);
    }
    const uint8_t byte = BlockScaleByte(LargestLane(largest), kE2m1InverseMax);
    const __m256 scale = _mm256_set1_ps(E8m0ToFloat(byte));
    alignas(32) int32_t codes[32];
    for (int i = 0; i < 32; i += 8) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(codes + i),
                         ToE2m1(_mm256_div_ps(_mm256_loadu_ps(values + i), scale)));
    }
    for (int i = 0; i < 16; ++i) {
      key[16 * block + i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
    }
    key[width / 2 + block] = byte;
  }
}

void ExpandEntry(const uint8_t* entry, int64_t plain, int64_t rotary, uint16_t* out) {
  const uint8_t* scales = entry + plain + 2 * rotary;
  for (int64_t i = 0; i < plain; i += 8) {
    const __m256 scale = _mm256_set1_ps(E8m0ToFloat(scales[i / 64]));
    const __m256 value = _mm256_mul_ps(FromE4m3(entry + i), scale);
    StoreBytes16(out + i, LowWords(_mm256_srli_epi32(AsBits(value), 16)));
  }
  for (int64_t i = 0; i < rotary; ++i) {
    out[plain + i] = LoadUnaligned<uint16_t>(entry + plain + 2 * i);
  }
  for (int64_t i = plain + rotary; i < RoundUp(plain + rotary, 32); ++i) out[i] = 0;
}

float ScaleScores(float* scores, int64_t n, float factor) {
  __m256 largest = _mm256_set1_ps(-__builtin_inff());
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(scores + i), _mm256_set1_ps(factor));
    _mm256_storeu_ps(scores + i, scaled);
    largest = _mm256_max_ps(scaled, largest);  // in this order NaN loses
  }
  return LargestLane(largest);
}

void SoftmaxNumerators(const float* scores, int64_t n, float maximum, uint16_t* p, float* lanes) {
  __m256 sums[2] = {_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8)};
  for (int64_t i = 0; i < n; i += 16) {
    for (int half = 0; half < 2; ++half) {
      const int64_t at = i + 8 * half;
      const __m256 e =
          VectorExp(_mm256_sub_ps(_mm256_loadu_ps(scores + at), _mm256_set1_ps(maximum)));
      StoreBytes16(p + at, LowWords(RoundToBf16Bits(e)));
      sums[half] = _mm256_add_ps(sums[half], e);
    }
  }
  _mm256_storeu_ps(lanes, sums[0]);
  _mm256_storeu_ps(lanes + 8, sums[1]);
}

void Swiglu(const float* gate, const float* up, int64_t n, float limit, float weight, float* out) {
  const __m256 high = _mm256_set1_ps(limit), low = _mm256_set1_ps(-limit);
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i inside = FirstLanes(n - i);
    __m256 g = _mm256_maskload_ps(gate + i, inside);
    __m256 u = _mm256_maskload_ps(up + i, inside);
    if (limit > 0) {  // the operand order keeps NaN
      g = _mm256_min_ps(high, g);
      u = _mm256_min_ps(high, _mm256_max_ps(low, u));
    }
    const __m256 negative = _mm256_xor_ps(g, _mm256_set1_ps(-0.0f));
    const __m256 sigmoid = _mm256_div_ps(one, _mm256_add_ps(one, VectorExp(negative)));
    const __m256 product = _mm256_mul_ps(_mm256_mul_ps(g, sigmoid), u);
    _mm256_maskstore_ps(out + i, inside, _mm256_mul_ps(_mm256_set1_ps(weight), product));
  }
}

}  // namespace

}  // namespace toaster::kernels::avx2
