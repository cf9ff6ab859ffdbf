#pragma once

// Keys that may be among the best: bounds of their scores in whole numbers (kernels.h,
// index_candidates). Dots, their positive parts and the products with the weights are two
// instructions for 32 of them, where the roundings of scores take nine for 16.

#include <limits>

#include "backend/cpu/kernels/avx512_folded_keys.h"
#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/key_cursor.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kGroupKeys = 16;  // whose bounds are worked out together
static_assert(kGroupKeys == kCandidateKeyStep);

/// Half of the lanes of a, added in pairs that lie kApart lanes apart, beside half of b's.
template <int kApart>
[[gnu::always_inline]] inline __m512i AddApart(__m512i a, __m512i b) {
  constexpr __mmask16 kUpper = kApart == 1   ? 0xAAAA
                               : kApart == 2 ? 0xCCCC
                               : kApart == 4 ? 0xF0F0
                                             : 0xFF00;
  const __m512i kept = _mm512_mask_blend_epi32(kUpper, a, b);
  const __m512i other = _mm512_mask_blend_epi32(static_cast<__mmask16>(~kUpper), a, b);
  if constexpr (kApart == 1) {
    return _mm512_add_epi32(kept, _mm512_shuffle_epi32(other, _MM_PERM_CDAB));
  } else if constexpr (kApart == 2) {
    return _mm512_add_epi32(kept, _mm512_shuffle_epi32(other, _MM_PERM_BADC));
  } else {
    return _mm512_add_epi32(kept, _mm512_shuffle_i64x2(other, other, kApart == 4 ? 0xB1 : 0x4E));
  }
}

/// Whether a dot does not count, given the bits of all: positive ones as packed to words.
inline bool TooLarge(__m512i dots) {
  const __m512i bits = _mm512_set1_epi16(static_cast<int16_t>(~kMostCandidateDot));
  return _mm512_test_epi16_mask(dots, bits) != 0;
}

/// Takes up the candidates among 16 keys.
class FoundCandidates {
 public:
  FoundCandidates(float scale, int64_t count, int32_t first, float bar,
                  const IndexCandidates& found)
      : scale_(scale), count_(count), first_(first), bar_(bar), found_(found) {}

  int64_t size() const { return size_; }

  /// The keys from `key` on, their number may be past the last one: sums in whole numbers, what
  /// those may be off, in sixteenths and lanes to add, what is left of the scales, and the keys of
  /// which nothing is known.
  void Add(int64_t key, __m512i sums, __m512i slacks, __m512 scales, __mmask16 unknown) {
    const __m512 slack =
        _mm512_set1_ps(static_cast<float>(_mm512_reduce_add_epi32(slacks)) * kSlackUnit);
    const __m512 middle = _mm512_cvtepi32_ps(sums);
    const __m512 unit = _mm512_mul_ps(scales, _mm512_set1_ps(scale_));
    const __m512 upper = _mm512_mul_ps(_mm512_add_ps(middle, slack), unit);
    const int64_t left = count_ - key;
    const __mmask16 inside = left >= kGroupKeys ? 0xFFFF : FirstLanes(left > 0 ? left : 0);
    const __mmask16 candidates =
        inside & (unknown | _mm512_cmp_ps_mask(upper, _mm512_set1_ps(bar_), _CMP_GE_OQ));
    if (candidates == 0) [[likely]]
      return;
    const __m512 lower = _mm512_mul_ps(_mm512_sub_ps(middle, slack), unit);
    const __m512 infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity());
    const __m512i numbers =
        _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_ + key)),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_storeu_si512(found_.keys + size_, _mm512_maskz_compress_epi32(candidates, numbers));
    Store(_mm512_mask_sub_ps(lower, unknown, _mm512_setzero_ps(), infinity), candidates,
          found_.lower);
    Store(_mm512_mask_mov_ps(upper, unknown, infinity), candidates, found_.upper);
    size_ += __builtin_popcount(candidates);
  }

 private:
  void Store(__m512 bounds, __mmask16 candidates, float* out) const {
    _mm512_storeu_ps(out + size_, _mm512_maskz_compress_ps(candidates, bounds));
  }

  float scale_;
  int64_t count_;
  int32_t first_;
  float bar_;
  const IndexCandidates& found_;
  int64_t size_ = 0;
};

/// Adds the terms of 32 heads to the lanes of kFoldedKeys keys; `all_dots` takes up the bits of the
/// dots. A call of its own, so that the lanes stay in memory and the dots in registers.
[[gnu::noinline]] void AddWholeTerms(const CandidateQuery& query, int64_t head,
                                     const uint8_t (*keys)[kMaxIndexWidth], __m512i* lanes,
                                     __m512i& all_dots) {
  __m512i sums[2][kFoldedKeys];
  MultiplyFolded<2>(query.codes, query.offsets, query.heads, kCandidateWidth, head, keys, sums);
  const __m512i weights = _mm512_loadu_si512(query.weights + head);
#pragma GCC unroll 8
  for (int i = 0; i < kFoldedKeys; ++i) {
    // Dots below zero become zero, those of 2^16 and more the largest word.
    const __m512i dots = _mm512_packus_epi32(sums[0][i], sums[1][i]);
    all_dots = _mm512_or_si512(all_dots, dots);
    lanes[i] = _mm512_dpwssd_epi32(lanes[i], dots, weights);
  }
}

/// The sums over the lanes of 16 keys.
inline __m512i AddLanes(const __m512i (&lanes)[kGroupKeys]) {
  __m512i one_apart[8], two_apart[4], four_apart[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) one_apart[i] = AddApart<1>(lanes[2 * i], lanes[2 * i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) two_apart[i] = AddApart<2>(one_apart[2 * i], one_apart[2 * i + 1]);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) four_apart[i] = AddApart<4>(two_apart[2 * i], two_apart[2 * i + 1]);
  return AddApart<8>(four_apart[0], four_apart[1]);
}

int64_t FindCandidates(const CandidateQuery& query, const KeyPages& keys, int64_t count,
                       int32_t first, float bar, const IndexCandidates& found) {
  if (count == 0) return 0;
  FoundCandidates list(query.scale, count, first, bar, found);
  KeyCursor cursor(keys, count, kCandidateWidth / 2 + kCandidateWidth / 32);
  for (int64_t begin = 0; begin < count; begin += kGroupKeys) {
    const uint8_t* group[kGroupKeys];
    cursor.Next(group);  // the last key fills up a group
    FoldedKeys<kGroupKeys> folded;
    const __mmask16 unfit = folded.Unpack(group, kCandidateWidth, BiasedCodes());
    __m512i lanes[kGroupKeys] = {};
    __m512i slacks = _mm512_setzero_si512(), all_dots = slacks;
    for (int64_t head = 0; head < query.heads; head += kCandidateHeadStep) {
      __m512i dots = _mm512_setzero_si512();
      for (int i = 0; i < kGroupKeys; i += kFoldedKeys)
        AddWholeTerms(query, head, folded.codes + i, lanes + i, dots);
      slacks = _mm512_dpwssd_epi32(slacks, dots, _mm512_loadu_si512(query.slacks + head));
      all_dots = _mm512_or_si512(all_dots, dots);
    }
    list.Add(begin, AddLanes(lanes), slacks, _mm512_load_ps(folded.scales),
             TooLarge(all_dots) ? 0xFFFF : unfit);
  }
  return list.size();
}

}  // namespace

}  // namespace toaster::kernels::avx512
