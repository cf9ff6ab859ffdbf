#pragma once

// Kernels of the AVX-512 table that work element by element, and the two halves of attention.
// Included by avx512_bf16.cc only.

#include "backend/cpu/kernels/avx512_expand.h"
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

/// Butterflies inside a vector: x [i] + x [i + stride] and x [i] - x [i + stride], from x and x
/// with its partners swapped.
inline __m512 Butterfly(__m512 x, __m512 swapped, __mmask16 second) {
  return _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), second, swapped, x);
}

void Hadamard(float* x, int64_t n) {
  const __m512 factor =
      _mm512_set1_ps(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(n))));
  for (int64_t i = 0; i < n; i += 16) {
    __m512 y = _mm512_loadu_ps(x + i);
    y = Butterfly(y, _mm512_permute_ps(y, 0xB1), 0xAAAA);
    y = Butterfly(y, _mm512_permute_ps(y, 0x4E), 0xCCCC);
    y = Butterfly(y, _mm512_shuffle_f32x4(y, y, 0xB1), 0xF0F0);
    y = Butterfly(y, _mm512_shuffle_f32x4(y, y, 0x4E), 0xFF00);
    _mm512_storeu_ps(x + i, y);
  }
  for (int64_t half = 16; half < n; half *= 2) {
    const __m512 last = 2 * half == n ? factor : _mm512_set1_ps(1.0f);
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; i += 16) {
        const __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + half);
        _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_add_ps(a, b), last));
        _mm512_storeu_ps(x + i + half, _mm512_mul_ps(_mm512_sub_ps(a, b), last));
      }
    }
  }
}

/// The E2M1 codes of 16 numbers; as FloatToE2m1.
inline __m128i ToE2m1(__m512 x) {
  const __m512 magnitude = _mm512_abs_ps(x);
  const __m512i one = _mm512_set1_epi32(1);
  const auto count = [&](__m512i codes, __mmask16 mask) {
    return _mm512_mask_add_epi32(codes, mask, codes, one);
  };
  __m512i codes = _mm512_and_si512(_mm512_srli_epi32(AsBits(x), 28), _mm512_set1_epi32(8));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0.25f), _CMP_GT_OQ));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0.75f), _CMP_GE_OQ));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(1.25f), _CMP_GT_OQ));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(1.75f), _CMP_GE_OQ));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(2.5f), _CMP_GT_OQ));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(3.5f), _CMP_GE_OQ));
  codes = count(codes, _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(5.0f), _CMP_GT_OQ));
  return _mm512_cvtepi32_epi8(codes);
}

void EncodeKey(const float* x, int64_t width, uint8_t* key) {
  for (int64_t block = 0; block < width / 32; ++block) {
    const __m512 low = _mm512_loadu_ps(x + 32 * block);
    const __m512 high = _mm512_loadu_ps(x + 32 * block + 16);
    // The operand order keeps a NaN out of the maximum, as the scalar comparison does.
    __m512 largest = _mm512_max_ps(_mm512_abs_ps(low), _mm512_set1_ps(kE2m1AmaxFloor));
    largest = _mm512_max_ps(_mm512_abs_ps(high), largest);
    const uint8_t byte = BlockScaleByte(_mm512_reduce_max_ps(largest), kE2m1InverseMax);
    const __m512 scale = _mm512_set1_ps(E8m0ToFloat(byte));
    const __m256i codes =
        _mm256_set_m128i(ToE2m1(_mm512_div_ps(high, scale)), ToE2m1(_mm512_div_ps(low, scale)));
    // Even code plus 16 times the odd one.
    const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x1001));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(key + 16 * block), _mm256_cvtepi16_epi8(pairs));
    key[width / 2 + block] = byte;
  }
}

void ExpandEntry(const uint8_t* entry, int64_t plain, int64_t rotary, uint16_t* out) {
  const uint8_t* scales = entry + plain + 2 * rotary;
  const E4m3Table table;
  for (int64_t i = 0; i < plain; i += 64) {
    __m512i values[2];
    table.Expand(entry + i, values);
    _mm512_storeu_si512(out + i, ScaleE4m3(values[0], scales[i / 64]));
    _mm512_storeu_si512(out + i + 32, ScaleE4m3(values[1], scales[i / 64]));
  }
  for (int64_t i = 0; i < rotary; i += 32) {
    const __mmask32 inside = FirstWords(Least(rotary - i, 32));
    _mm512_storeu_si512(out + plain + i, _mm512_maskz_loadu_epi16(inside, entry + plain + 2 * i));
  }
}

float ScaleScores(float* scores, int64_t n, float factor) {
  __m512 largest = _mm512_set1_ps(-__builtin_inff());
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(factor));
    _mm512_storeu_ps(scores + i, scaled);
    largest = _mm512_max_ps(scaled, largest);  // in this order NaN loses
  }
  return _mm512_reduce_max_ps(largest);
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

/// 32 numbers in the order of AccumulateTile's sums: unpacklo and unpackhi of words leave the
/// quarters of two rows so.
struct SplitColumns {
  __m512 low, high;
};

inline SplitColumns LoadSplit(const float* x) {
  const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
  return {_mm512_shuffle_f32x4(first, second, 0x88), _mm512_shuffle_f32x4(first, second, 0xDD)};
}

inline void StoreSplit(const SplitColumns& columns, float* x) {
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second =
      _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  _mm512_storeu_ps(x, _mm512_permutex2var_ps(columns.low, first, columns.high));
  _mm512_storeu_ps(x + 16, _mm512_permutex2var_ps(columns.low, second, columns.high));
}

/// kHeads heads times 32 * kParts columns of values.
template <int kHeads, int kParts>
void AccumulateTile(const uint16_t* p, int64_t p_stride, const uint16_t* v, int64_t v_stride,
                    int64_t slots, float* o, int64_t o_stride) {
  SplitColumns sums[kHeads][kParts];
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      sums[h][part] = LoadSplit(o + h * o_stride + 32 * part);
    }
  }
  for (int64_t s = 0; s < slots; s += 2, v += 2 * v_stride) {
    __m512i low[kParts], high[kParts];  // words of both slots side by side
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      const __m512i even = _mm512_loadu_si512(v + 32 * part);
      const __m512i odd = _mm512_loadu_si512(v + v_stride + 32 * part);
      low[part] = _mm512_unpacklo_epi16(even, odd);
      high[part] = _mm512_unpackhi_epi16(even, odd);
    }
#pragma GCC unroll 8
    for (int h = 0; h < kHeads; ++h) {
      const __m512i weights = _mm512_set1_epi32(LoadUnaligned<int32_t>(p + h * p_stride + s));
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) {
        sums[h][part].low = AddProducts(sums[h][part].low, low[part], weights);
        sums[h][part].high = AddProducts(sums[h][part].high, high[part], weights);
      }
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      StoreSplit(sums[h][part], o + h * o_stride + 32 * part);
    }
  }
}

template <int kHeads>
void AccumulateHeads(const uint16_t* p, int64_t p_stride, const uint16_t* v, int64_t v_stride,
                     int64_t slots, int64_t width, float* o, int64_t o_stride) {
  int64_t column = 0;
  for (; column + 64 <= width; column += 64) {
    AccumulateTile<kHeads, 2>(p, p_stride, v + column, v_stride, slots, o + column, o_stride);
  }
  if (column < width) {
    AccumulateTile<kHeads, 1>(p, p_stride, v + column, v_stride, slots, o + column, o_stride);
  }
}

void AccumulateBf16(const uint16_t* p, int64_t p_head, int64_t p_slot, const uint16_t* v,
                    int64_t v_stride, int64_t heads, int64_t slots, int64_t width, float* o,
                    int64_t o_stride) {
  constexpr int kHeads = 6;  // with 64 columns 24 sums, four vectors of values, one of weights
  constexpr int64_t kTurnedSlots = 64;
  for (int64_t h = 0; h < heads; h += kHeads) {
    const int64_t count = Least(heads - h, kHeads);
    const auto accumulate = count == 1   ? AccumulateHeads<1>
                            : count == 2 ? AccumulateHeads<2>
                            : count == 3 ? AccumulateHeads<3>
                            : count == 4 ? AccumulateHeads<4>
                            : count == 5 ? AccumulateHeads<5>
                                         : AccumulateHeads<6>;
    if (p_slot == 1) {
      accumulate(p + h * p_head, p_head, v, v_stride, slots, width, o + h * o_stride, o_stride);
      continue;
    }
    for (int64_t begin = 0; begin < slots; begin += kTurnedSlots) {
      const int64_t piece = Least(slots - begin, kTurnedSlots);
      uint16_t turned[kHeads * kTurnedSlots];
      for (int64_t s = 0; s < piece; ++s) {
        for (int64_t i = 0; i < count; ++i) {
          turned[i * kTurnedSlots + s] = p[(h + i) * p_head + (begin + s) * p_slot];
        }
      }
      accumulate(turned, kTurnedSlots, v + begin * v_stride, v_stride, piece, width,
                 o + h * o_stride, o_stride);
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
