#pragma once

// Sums of weighted values, all floats: as avx2_accumulate.h on sixteen lanes. Included by
// avx512_table.h only.

#include <utility>

#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/even_groups.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kFloatSumHeads = 12;          // with 32 columns 24 sums, two vectors of values
constexpr int64_t kFloatFactorSlots = 128;  // whose factors are brought together at a time

/// kHeads heads, up to 32 columns. Factors are [slots, factor_stride].
template <int kHeads>
void AddFloatSlots(const float* factors, int64_t factor_stride, const float* v, int64_t v_stride,
                   int64_t slots, int64_t columns, float* o, int64_t o_stride) {
  const __mmask16 low = FirstLanes(Least(columns, 16)),
                  high = FirstLanes(columns > 16 ? columns - 16 : 0);
  __m512 first[kHeads], second[kHeads];
#pragma GCC unroll 12
  for (int h = 0; h < kHeads; ++h) {
    first[h] = _mm512_maskz_loadu_ps(low, o + h * o_stride);
    second[h] = _mm512_maskz_loadu_ps(high, o + h * o_stride + 16);
  }
  for (int64_t s = 0; s < slots; ++s, v += v_stride, factors += factor_stride) {
    const __m512 first_values = _mm512_maskz_loadu_ps(low, v),
                 second_values = _mm512_maskz_loadu_ps(high, v + 16);
#pragma GCC unroll 12
    for (int h = 0; h < kHeads; ++h) {
      const __m512 factor = _mm512_set1_ps(factors[h]);
      first[h] = _mm512_fmadd_ps(factor, first_values, first[h]);
      second[h] = _mm512_fmadd_ps(factor, second_values, second[h]);
    }
  }
#pragma GCC unroll 12
  for (int h = 0; h < kHeads; ++h) {
    _mm512_mask_storeu_ps(o + h * o_stride, low, first[h]);
    _mm512_mask_storeu_ps(o + h * o_stride + 16, high, second[h]);
  }
}

/// AddFloatSlots of so many heads.
template <size_t... kCounts>
auto* AddFloatSlotsOf(int64_t heads, std::index_sequence<kCounts...>) {
  using Function =
      void(const float*, int64_t, const float*, int64_t, int64_t, int64_t, float*, int64_t);
  static constexpr Function* kFunctions[] = {AddFloatSlots<static_cast<int>(kCounts) + 1>...};
  return kFunctions[heads - 1];
}

void AccumulateF32(const float* p, int64_t p_head, int64_t p_slot, const float* v, int64_t v_stride,
                   int64_t heads, int64_t slots, int64_t width, float* o, int64_t o_stride) {
  float together[kFloatFactorSlots * kFloatSumHeads];
  const EvenGroups groups(heads, kFloatSumHeads);
  for (int64_t group = 0, h = 0; group < groups.groups; h += groups.Size(group++)) {
    const int64_t count = groups.Size(group);
    const auto add = AddFloatSlotsOf(count, std::make_index_sequence<kFloatSumHeads>{});
    for (int64_t begin = 0; begin < slots; begin += kFloatFactorSlots) {
      const int64_t part = Least(slots - begin, kFloatFactorSlots);
      const float* factors = p + h * p_head + begin * p_slot;
      int64_t stride = p_slot;
      if (p_head != 1) {
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t s = 0; s < part; ++s) {
            together[s * kFloatSumHeads + i] = factors[i * p_head + s * p_slot];
          }
        }
        factors = together, stride = kFloatSumHeads;
      }
      for (int64_t column = 0; column < width; column += 32) {
        add(factors, stride, v + begin * v_stride + column, v_stride, part,
            Least(width - column, 32), o + h * o_stride + column, o_stride);
      }
    }
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
