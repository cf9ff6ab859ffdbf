#pragma once

// Products o += p v whose sums run along the columns of p and the rows of v, with eight-lane
// vectors. Included by avx2.cc; the AVX-512 files take the one on floats.

#include "backend/cpu/kernels/avx2_vector.h"

namespace toaster::kernels::avx2 {

namespace {

constexpr int kSumHeads = 6;  // with 16 columns 12 sums, two vectors of values, one of factors
constexpr int64_t kSumSlots = 64;
constexpr int64_t kFactorStride = 8;  // factors of one slot: a vector, two of them unused

inline void Transpose8(__m256 (&rows)[8]) {
  __m256 pairs[8], quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

/// BF16 operands; of each pair of slots the odd one is added first. Sums are held as even and odd
/// columns.
struct Bf16Values {
  using Number = uint16_t;
  static constexpr bool kOddFirst = true;
  static float ToFloat(uint16_t x) { return Bf16ToFloat(x); }
  static __m256 Load8(const uint16_t* x) { return FromBf16(LoadBytes16(x)); }
  static void Load16(const uint16_t* x, __m256& first, __m256& second) {
    const __m256i values = LoadBytes32(x);
    first = EvenOf(values), second = OddOf(values);
  }
  static void LoadSums(const float* o, __m256& first, __m256& second) {
    const __m256 low = _mm256_loadu_ps(o), high = _mm256_loadu_ps(o + 8);
    // Columns 0 2 8 10 4 6 12 14 and 1 3 9 11 5 7 13 15, put in order.
    first = AsFloats(_mm256_permute4x64_epi64(AsBits(_mm256_shuffle_ps(low, high, 0x88)), 0xD8));
    second = AsFloats(_mm256_permute4x64_epi64(AsBits(_mm256_shuffle_ps(low, high, 0xDD)), 0xD8));
  }
  static void StoreSums(float* o, __m256 first, __m256 second) {
    const __m256 low = _mm256_unpacklo_ps(first, second);
    const __m256 high = _mm256_unpackhi_ps(first, second);
    _mm256_storeu_ps(o, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(o + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
};

/// Float operands, slots in rising order.
struct FloatValues {
  using Number = float;
  static constexpr bool kOddFirst = false;
  static float ToFloat(float x) { return x; }
  static __m256 Load8(const float* x) { return _mm256_loadu_ps(x); }
  static void Load16(const float* x, __m256& first, __m256& second) {
    first = _mm256_loadu_ps(x), second = _mm256_loadu_ps(x + 8);
  }
  static void LoadSums(const float* o, __m256& first, __m256& second) { Load16(o, first, second); }
  static void StoreSums(float* o, __m256 first, __m256 second) {
    _mm256_storeu_ps(o, first);
    _mm256_storeu_ps(o + 8, second);
  }
};

/// Factors of `heads` heads and `slots` slots as floats [slots, kFactorStride].
template <typename Values>
void ExpandFactors(const typename Values::Number* p, int64_t p_head, int64_t p_slot, int64_t heads,
                   int64_t in_row, int64_t slots, float* factors) {
  int64_t s = 0;
  if (p_head == 1 && in_row >= kFactorStride) {
    for (; s < slots; ++s) {
      _mm256_storeu_ps(factors + s * kFactorStride, Values::Load8(p + s * p_slot));
    }
  } else if (p_slot == 1) {
    for (; s + 8 <= slots; s += 8) {
      __m256 rows[8];
#pragma GCC unroll 8
      for (int h = 0; h < 8; ++h) {
        rows[h] = h < heads ? Values::Load8(p + h * p_head + s) : _mm256_setzero_ps();
      }
      Transpose8(rows);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) _mm256_storeu_ps(factors + (s + i) * kFactorStride, rows[i]);
    }
  }
  for (; s < slots; ++s) {
    for (int64_t h = 0; h < heads; ++h) {
      factors[s * kFactorStride + h] = Values::ToFloat(p[h * p_head + s * p_slot]);
    }
  }
}

/// kHeads heads times 16 columns.
template <typename Values, int kHeads>
void AccumulateTile(const float* factors, const typename Values::Number* v, int64_t v_stride,
                    int64_t slots, float* o, int64_t o_stride) {
  __m256 first[kHeads], second[kHeads];
#pragma GCC unroll 6
  for (int h = 0; h < kHeads; ++h) Values::LoadSums(o + h * o_stride, first[h], second[h]);
  const auto add = [&](int64_t slot) {
    __m256 first_values, second_values;
    Values::Load16(v + slot * v_stride, first_values, second_values);
#pragma GCC unroll 6
    for (int h = 0; h < kHeads; ++h) {
      const __m256 factor = _mm256_broadcast_ss(factors + slot * kFactorStride + h);
      first[h] = _mm256_fmadd_ps(factor, first_values, first[h]);
      second[h] = _mm256_fmadd_ps(factor, second_values, second[h]);
    }
  };
  int64_t s = 0;
  for (; s + 2 <= slots; s += 2) {
    add(Values::kOddFirst ? s + 1 : s);
    add(Values::kOddFirst ? s : s + 1);
  }
  if (s < slots) add(s);
#pragma GCC unroll 6
  for (int h = 0; h < kHeads; ++h) Values::StoreSums(o + h * o_stride, first[h], second[h]);
}

template <typename Values>
void Accumulate(const typename Values::Number* p, int64_t p_head, int64_t p_slot,
                const typename Values::Number* v, int64_t v_stride, int64_t heads, int64_t slots,
                int64_t width, float* o, int64_t o_stride) {
  for (int64_t h = 0; h < heads; h += kSumHeads) {
    const int64_t count = Least(heads - h, kSumHeads);
    const auto accumulate = count == 1   ? AccumulateTile<Values, 1>
                            : count == 2 ? AccumulateTile<Values, 2>
                            : count == 3 ? AccumulateTile<Values, 3>
                            : count == 4 ? AccumulateTile<Values, 4>
                            : count == 5 ? AccumulateTile<Values, 5>
                                         : AccumulateTile<Values, 6>;
    for (int64_t begin = 0; begin < slots; begin += kSumSlots) {
      const int64_t piece = Least(slots - begin, kSumSlots);
      float factors[kSumSlots * kFactorStride];
      ExpandFactors<Values>(p + h * p_head + begin * p_slot, p_head, p_slot, count, heads - h,
                            piece, factors);
      const typename Values::Number* values = v + begin * v_stride;
      int64_t column = 0;
      for (; column + 16 <= width; column += 16) {
        accumulate(factors, values + column, v_stride, piece, o + h * o_stride + column, o_stride);
      }
      const int64_t rest = width - column;
      if (rest == 0) continue;
      // The last columns apart, filled up with zeros.
      typename Values::Number last_values[kSumSlots * 16] = {};
      float last[kSumHeads * 16] = {};
      for (int64_t s = 0; s < piece; ++s) {
        for (int64_t c = 0; c < rest; ++c) {
          last_values[s * 16 + c] = values[s * v_stride + column + c];
        }
      }
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t c = 0; c < rest; ++c) last[i * 16 + c] = o[(h + i) * o_stride + column + c];
      }
      accumulate(factors, last_values, 16, piece, last, 16);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t c = 0; c < rest; ++c) o[(h + i) * o_stride + column + c] = last[i * 16 + c];
      }
    }
  }
}

}  // namespace

}  // namespace toaster::kernels::avx2
