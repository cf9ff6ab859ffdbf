#pragma once

// Sums of weighted values by fused multiply-adds instead of vdpbf16ps, as avx512_float_tiles.h does
// it for products. Included by the same files only.

#include <utility>

#include "backend/cpu/kernels/avx512_float_tiles.h"
#include "backend/cpu/kernels/even_groups.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kSumHeads = 12;          // with 32 columns 24 sums, two vectors of values
constexpr int64_t kFactorSlots = 256;  // whose factors are floats at a time

/// Factors of up to kSumHeads heads and kFactorSlots slots as floats, the odd slot of each pair
/// before the even one in kBySlot, and in runs of 16 odd and 16 even ones otherwise.
template <bool kBySlot>
struct Factors {
  static constexpr int64_t kHeadStride = kBySlot ? 1 : kFactorSlots;
  alignas(64) float floats[(kBySlot ? 16 : kSumHeads) * kFactorSlots];

  /// p[h * p_head + s * p_slot] with p_head 1 if kBySlot and p_slot 1 if not.
  void Load(const uint16_t* p, int64_t p_head, int64_t p_slot, int64_t heads, int64_t slots) {
    if constexpr (kBySlot) {
      const __mmask16 inside = FirstLanes(heads);
      for (int64_t s = 0; s < slots; ++s) {
        const __m256i words = _mm256_maskz_loadu_epi16(inside, p + s * p_slot);
        _mm512_store_ps(floats + 16 * (s ^ 1), FromBf16(words));
      }
    } else {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t s = 0; s < slots; s += 32) {
          const __mmask32 inside = FirstWords(Least(slots - s, 32));
          StoreSeparated(_mm512_maskz_loadu_epi16(inside, p + h * p_head + s),
                         floats + h * kFactorSlots + s, 16);
        }
      }
    }
  }

  /// Of head 0 in the pair's odd and even slot; head h is h * kHeadStride behind.
  const float* Odd(int64_t pair) const {
    return floats + (kBySlot ? 32 * pair : pair / 16 * 32 + pair % 16);
  }
  static const float* Even(const float* odd) { return odd + 16; }
};

/// 32 numbers as 16 in even and 16 in odd columns.
struct EvenAndOdd {
  __m512 even, odd;
};

inline EvenAndOdd LoadEvenAndOdd(const float* x) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
  return {_mm512_permutex2var_ps(first, even, second), _mm512_permutex2var_ps(first, odd, second)};
}

inline void StoreEvenAndOdd(const EvenAndOdd& columns, float* x) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  _mm512_storeu_ps(x, _mm512_permutex2var_ps(columns.even, first, columns.odd));
  _mm512_storeu_ps(x + 16, _mm512_permutex2var_ps(columns.even, second, columns.odd));
}

template <int kHeads, bool kBySlot>
inline void AddSlot(const uint16_t* v, const float* factors, EvenAndOdd (&sums)[kHeads]) {
  const __m512i values = _mm512_loadu_si512(v);
  const __m512 even = AsFloats(_mm512_slli_epi32(values, 16));
  const __m512 odd =
      AsFloats(_mm512_and_si512(values, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
#pragma GCC unroll 12
  for (int h = 0; h < kHeads; ++h) {
    const __m512 factor = _mm512_set1_ps(factors[h * Factors<kBySlot>::kHeadStride]);
    sums[h].even = _mm512_fmadd_ps(even, factor, sums[h].even);
    sums[h].odd = _mm512_fmadd_ps(odd, factor, sums[h].odd);
  }
}

/// kHeads heads times `width` columns of values.
template <int kHeads, bool kBySlot>
void AddSlots(const Factors<kBySlot>& factors, const uint16_t* v, int64_t v_stride, int64_t slots,
              int64_t width, float* o, int64_t o_stride) {
  for (int64_t column = 0; column < width; column += 32) {
    EvenAndOdd sums[kHeads];
#pragma GCC unroll 12
    for (int h = 0; h < kHeads; ++h) sums[h] = LoadEvenAndOdd(o + h * o_stride + column);
    const uint16_t* values = v + column;
    for (int64_t pair = 0; pair < slots / 2; ++pair, values += 2 * v_stride) {
      const float* odd = factors.Odd(pair);
      // Rows of a few cache lines are no stream to the processor: the next slots' are asked for.
      __builtin_prefetch(values + kFactorSlots * v_stride, 0, 2);
      __builtin_prefetch(values + (kFactorSlots + 1) * v_stride, 0, 2);
      AddSlot<kHeads, kBySlot>(values + v_stride, odd, sums);
      AddSlot<kHeads, kBySlot>(values, Factors<kBySlot>::Even(odd), sums);
    }
#pragma GCC unroll 12
    for (int h = 0; h < kHeads; ++h) StoreEvenAndOdd(sums[h], o + h * o_stride + column);
  }
}

/// AddSlots of so many heads.
template <bool kBySlot, size_t... kCounts>
auto* AddSlotsOf(int64_t heads, std::index_sequence<kCounts...>) {
  using Function =
      void(const Factors<kBySlot>&, const uint16_t*, int64_t, int64_t, int64_t, float*, int64_t);
  static constexpr Function* kFunctions[] = {AddSlots<static_cast<int>(kCounts) + 1, kBySlot>...};
  return kFunctions[heads - 1];
}

template <bool kBySlot>
void FusedAccumulate(const uint16_t* p, int64_t p_head, int64_t p_slot, const uint16_t* v,
                     int64_t v_stride, int64_t heads, int64_t slots, int64_t width, float* o,
                     int64_t o_stride) {
  Factors<kBySlot> factors;
  const EvenGroups groups(heads, kSumHeads);
  for (int64_t group = 0, h = 0; group < groups.groups; h += groups.Size(group++)) {
    const int64_t count = groups.Size(group);
    const auto add = AddSlotsOf<kBySlot>(count, std::make_index_sequence<kSumHeads>{});
    for (int64_t s = 0; s < slots; s += kFactorSlots) {
      const int64_t part = Least(slots - s, kFactorSlots);
      factors.Load(p + h * p_head + s * p_slot, p_head, p_slot, count, part);
      add(factors, v + s * v_stride, v_stride, part, width, o + h * o_stride, o_stride);
    }
  }
}

void FusedAccumulateBf16(const uint16_t* p, int64_t p_head, int64_t p_slot, const uint16_t* v,
                         int64_t v_stride, int64_t heads, int64_t slots, int64_t width, float* o,
                         int64_t o_stride) {
  const auto accumulate = p_slot == 1 ? FusedAccumulate<false> : FusedAccumulate<true>;
  accumulate(p, p_head, p_slot, v, v_stride, heads, slots, width, o, o_stride);
}

}  // namespace

}  // namespace toaster::kernels::avx512
