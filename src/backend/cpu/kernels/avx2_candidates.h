#pragma once

// Keys that may be among the best: bounds of their scores in whole numbers (kernels.h,
// index_candidates). Included by avx2.cc only.
//
// vpmaddubsw wants one operand unsigned: the query's codes, into which the scales of its blocks
// have gone, are biased. A key's codes stay small, so that four products in each half of a lane fit
// 16 bits; the scales of its blocks come in where those become 32.

#include <limits>

#include "backend/cpu/kernels/avx2_vector.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/key_cursor.h"

namespace toaster::kernels::avx2 {

namespace {

constexpr int kGroupKeys = 8;  // whose bounds are worked out together
constexpr int kRoundKeys = 4;  // multiplied at once
constexpr int kKeyBlocks = kCandidateWidth / 32;
static_assert(kKeyBlocks == 4 && kCandidateKeyStep % kGroupKeys == 0);
// Sums of eight products of a biased code and one of a key, which is at most kIndexBias.
static_assert(8 * (2 * kFoldedIndexBias) * kIndexBias <= std::numeric_limits<int16_t>::max());

/// Keys unpacked.
struct CandidateKeys {
  alignas(32) int8_t codes[kGroupKeys][kCandidateWidth];    ///< doubled values, in FoldedOrder
  alignas(32) int16_t factors[kGroupKeys][kKeyBlocks][16];  ///< a block's scale of the key's least
  alignas(32) int32_t exponents[kGroupKeys];                ///< of the least
  int32_t offsets[kGroupKeys];                              ///< takes the query's bias away again
  uint32_t unfit = 0;  ///< bits of keys whose scales are too far apart or too extreme

  explicit CandidateKeys(const uint8_t* const (&keys)[kGroupKeys]) {
    for (int i = 0; i < kGroupKeys; ++i) {
      TakeScales(keys[i] + kCandidateWidth / 2, i);
      TakeCodes(keys[i], i);
    }
  }

 private:
  void TakeScales(const uint8_t* scales, int i) {
    int least = scales[0], most = scales[0];
    for (int block = 1; block < kKeyBlocks; ++block) {
      least = scales[block] < least ? scales[block] : least;
      most = scales[block] > most ? scales[block] : most;
    }
    exponents[i] = least;
    if (most - least > kMostFold || least < 127 - kPlainExponent ||
        least > 127 + kPlainExponent - kMostFold) {
      unfit |= 1U << i;
    }
    for (int block = 0; block < kKeyBlocks; ++block) {
      const auto factor = static_cast<int16_t>(1 << ((scales[block] - least) & kMostFold));
      StoreBytes32(factors[i][block], _mm256_set1_epi16(factor));
    }
  }

  void TakeCodes(const uint8_t* key, int i) {
    const __m256i table = _mm256_broadcastsi128_si256(DoubledE2m1());
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i sums = _mm256_setzero_si256();
    for (int half = 0; half < 2; ++half) {  // two blocks
      const __m256i pairs = LoadBytes32(key + 32 * half);
      const __m256i even = _mm256_shuffle_epi8(table, _mm256_and_si256(pairs, nibble));
      const __m256i odd =
          _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble));
      StoreBytes32(codes[i] + 32 * half, even);
      StoreBytes32(codes[i] + 64 + 32 * half, odd);
      const __m256i fours = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_add_epi8(even, odd));
      const __m256i of_blocks = _mm256_blend_epi32(LoadBytes32(factors[i][2 * half]),
                                                   LoadBytes32(factors[i][2 * half + 1]), 0xF0);
      sums = _mm256_add_epi32(sums, _mm256_madd_epi16(fours, of_blocks));
    }
    offsets[i] = -kFoldedIndexBias * Sum(sums);
  }
};

/// Dots of kRoundKeys keys from `first` on with 8 heads, whose biased codes of 4 numbers lie `step`
/// bytes apart.
[[gnu::always_inline]] inline void MultiplyRound(const uint8_t* codes, int64_t step,
                                                 const CandidateKeys& keys, int first,
                                                 __m256i (&dots)[kRoundKeys]) {
#pragma GCC unroll 4
  for (int i = 0; i < kRoundKeys; ++i) dots[i] = _mm256_set1_epi32(keys.offsets[first + i]);
  for (int k = 0; k < kCandidateWidth; k += 16) {  // half of a block: its even numbers or odd ones
    __m256i sums[kRoundKeys];
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad, codes += step) {
      const __m256i of_heads = LoadBytes32(codes);
#pragma GCC unroll 4
      for (int i = 0; i < kRoundKeys; ++i) {
        const __m256i key =
            _mm256_set1_epi32(LoadUnaligned<int32_t>(keys.codes[first + i] + k + 4 * quad));
        const __m256i products = _mm256_maddubs_epi16(of_heads, key);
        sums[i] = quad == 0 ? products : _mm256_add_epi16(sums[i], products);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRoundKeys; ++i) {
      const __m256i factors = LoadBytes32(keys.factors[first + i][k / 16 % kKeyBlocks]);
      dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(sums[i], factors));
    }
  }
}

/// Adds the terms of 16 heads, 8 from `codes` on and 8 behind the 16 from there, to the lanes of
/// kRoundKeys keys; `all_dots` takes up the bits of the dots.
[[gnu::noinline]] void AddWholeTerms(const uint8_t* codes, int64_t step, const int16_t* weights,
                                     const CandidateKeys& keys, int first, __m256i* lanes,
                                     __m256i& all_dots) {
  __m256i low[kRoundKeys], high[kRoundKeys];
  MultiplyRound(codes, step, keys, first, low);
  MultiplyRound(codes + 4 * 16, step, keys, first, high);
#pragma GCC unroll 4
  for (int i = 0; i < kRoundKeys; ++i) {
    // Dots below zero become zero, those of 2^16 and more the largest word.
    const __m256i dots = _mm256_packus_epi32(low[i], high[i]);
    all_dots = _mm256_or_si256(all_dots, dots);
    lanes[i] = _mm256_add_epi32(lanes[i], _mm256_madd_epi16(dots, LoadBytes32(weights)));
  }
}

/// The sums over the lanes of 8 keys.
inline __m256i AddLanes(const __m256i (&lanes)[kGroupKeys]) {
  const auto four = [](const __m256i* keys) {
    return _mm256_hadd_epi32(_mm256_hadd_epi32(keys[0], keys[1]),
                             _mm256_hadd_epi32(keys[2], keys[3]));
  };
  const __m256i first = four(lanes), second = four(lanes + 4);
  return _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20),
                          _mm256_permute2x128_si256(first, second, 0x31));
}

int64_t FindCandidates(const CandidateQuery& query, const KeyPages& keys, int64_t count,
                       int32_t first, float bar, const IndexCandidates& found) {
  if (count == 0) return 0;
  alignas(32) uint8_t codes[kCandidateWidth * kMaxCandidateHeads];
  for (int64_t i = 0; i < kCandidateWidth * query.heads; i += 32) {
    StoreBytes32(codes + i,
                 _mm256_add_epi8(LoadBytes32(query.codes + i), _mm256_set1_epi8(kFoldedIndexBias)));
  }
  KeyCursor cursor(keys, count, kCandidateWidth / 2 + kKeyBlocks);
  int64_t size = 0;
  for (int64_t begin = 0; begin < count; begin += kGroupKeys) {
    const uint8_t* group[kGroupKeys];
    cursor.Next(group);  // the last key fills up a group
    const CandidateKeys unpacked(group);
    __m256i lanes[kGroupKeys] = {};
    __m256i slacks = _mm256_setzero_si256(), all_dots = slacks;
    for (int64_t at = 0; at < query.heads; at += 16) {  // in CandidateOrder
      const int64_t head = at / 32 * 32 + at % 32 / 2;
      __m256i dots = _mm256_setzero_si256();
      for (int i = 0; i < kGroupKeys; i += kRoundKeys) {
        AddWholeTerms(codes + 4 * head, 4 * query.heads, query.weights + at, unpacked, i, lanes + i,
                      dots);
      }
      slacks = _mm256_add_epi32(slacks, _mm256_madd_epi16(dots, LoadBytes32(query.slacks + at)));
      all_dots = _mm256_or_si256(all_dots, dots);
    }
    const __m256i too_large = _mm256_set1_epi16(static_cast<int16_t>(~kMostCandidateDot));
    const uint32_t unknown = _mm256_testz_si256(all_dots, too_large) ? unpacked.unfit : 0xFF;
    const __m256 slack = _mm256_set1_ps(static_cast<float>(Sum(slacks)) * kSlackUnit);
    const __m256 middle = _mm256_cvtepi32_ps(AddLanes(lanes));
    const __m256 scales = AsFloats(_mm256_slli_epi32(LoadBytes32(unpacked.exponents), 23));
    const __m256 unit = _mm256_mul_ps(scales, _mm256_set1_ps(query.scale));
    const __m256 upper = _mm256_mul_ps(_mm256_add_ps(middle, slack), unit);
    const int over = _mm256_movemask_ps(_mm256_cmp_ps(upper, _mm256_set1_ps(bar), _CMP_GE_OQ));
    const uint32_t inside = count - begin >= kGroupKeys ? 0xFF : (1U << (count - begin)) - 1;
    uint32_t candidates = (unknown | static_cast<uint32_t>(over)) & inside;
    if (candidates == 0) [[likely]]
      continue;
    alignas(32) float bounds[2][kGroupKeys];
    _mm256_store_ps(bounds[0], _mm256_mul_ps(_mm256_sub_ps(middle, slack), unit));
    _mm256_store_ps(bounds[1], upper);
    for (; candidates != 0; candidates &= candidates - 1, ++size) {
      const int key = __builtin_ctz(candidates);
      const bool known = (unknown >> key & 1) == 0;
      constexpr float kInfinity = std::numeric_limits<float>::infinity();
      found.keys[size] = first + static_cast<int32_t>(begin) + key;
      found.lower[size] = known ? bounds[0][key] : -kInfinity;
      found.upper[size] = known ? bounds[1][key] : kInfinity;
    }
  }
  return size;
}

}  // namespace

}  // namespace toaster::kernels::avx2
