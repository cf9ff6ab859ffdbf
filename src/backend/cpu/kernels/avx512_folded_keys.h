#pragma once

// Index scores of keys whose blocks share one scale, as nearly all do (kernels.h,
// FoldedIndexQuery): unpacking the keys, and what follows the integer products. Included by
// avx512_index.h and amx_index.h.
//
// All scales are powers of two and every number far from the limits of a float: the dots stay
// integers, the heads' scales are in the weights, and the key's comes last.

#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::avx512 {

namespace {

// Doubled values of the E2M1 codes times 1, 2, 4 and 8, biased.
alignas(64) constexpr uint8_t kFoldedCodes[4][16] = {
    {96, 97, 98, 99, 100, 102, 104, 108, 96, 95, 94, 93, 92, 90, 88, 84},
    {96, 98, 100, 102, 104, 108, 112, 120, 96, 94, 92, 90, 88, 84, 80, 72},
    {96, 100, 104, 108, 112, 120, 128, 144, 96, 92, 88, 84, 80, 72, 64, 48},
    {96, 104, 112, 120, 128, 144, 160, 192, 96, 88, 80, 72, 64, 48, 32, 0}};
static_assert(kFoldedCodes[0][0] == kFoldedIndexBias);

/// The same codes, biased and signed.
inline __m512i BiasedCodes() { return _mm512_load_si512(kFoldedCodes); }
inline __m512i SignedCodes() {
  return _mm512_sub_epi8(BiasedCodes(), _mm512_set1_epi8(kFoldedIndexBias));
}

/// Of each lane the least of its four bytes, in all four.
inline __m512i LeastOfFour(__m512i bytes) {
  const __m512i least = _mm512_min_epu8(bytes, _mm512_rol_epi32(bytes, 16));
  return _mm512_min_epu8(least, _mm512_rol_epi32(least, 8));
}

/// Keys whose least scale is too extreme to be shared. `exponents`: those scales, as whole numbers.
inline __mmask16 ExtremeScales(__m512i exponents) {
  return _mm512_cmplt_epi32_mask(exponents, _mm512_set1_epi32(127 - kPlainExponent)) |
         _mm512_cmpgt_epi32_mask(exponents, _mm512_set1_epi32(127 + kPlainExponent - kMostFold));
}

/// Keys of which a block's scale is too far above the least to go into the codes. `above`: how far,
/// a byte for each of four blocks.
inline __mmask16 FarAbove(__m512i above) {
  static_assert(kMostFold == 3);  // the two lowest bits
  return _mm512_test_epi32_mask(above, _mm512_set1_epi8(~kMostFold));
}

/// 128 numbers in `pairs` of codes to values by a table: the even ones to `low`, the odd ones to
/// `high`. `folds`: of each of their four blocks a byte, how far its scale is above the least,
/// times 16.
[[gnu::always_inline]] inline void UnpackPairs(__m512i pairs, uint32_t folds, __m512i table,
                                               void* low, void* high) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i block_of_quarter =
      _mm512_setr_epi64(0, 0, 0x0101010101010101, 0x0101010101010101, 0x0202020202020202,
                        0x0202020202020202, 0x0303030303030303, 0x0303030303030303);
  // The place in the table is a code, behind the 16 of smaller scales than its block's.
  const __m512i row =
      _mm512_shuffle_epi8(_mm512_set1_epi32(static_cast<int>(folds)), block_of_quarter);
  constexpr int kAndOr = 0xEA;  // (a & b) | c
  const __m512i even = _mm512_ternarylogic_epi32(pairs, nibble, row, kAndOr);
  const __m512i odd = _mm512_ternarylogic_epi32(_mm512_srli_epi16(pairs, 4), nibble, row, kAndOr);
  _mm512_storeu_si512(low, _mm512_permutexvar_epi8(even, table));
  _mm512_storeu_si512(high, _mm512_permutexvar_epi8(odd, table));
}

/// Some keys unpacked, at most 16.
template <int kCount>
struct FoldedKeys {
  static constexpr int64_t kWords = kMaxIndexWidth / 128;

  alignas(64) uint8_t codes[kCount][kMaxIndexWidth];  ///< in FoldedOrder, the larger scales in them
  alignas(64) float scales[16];                       ///< of each key, what its blocks share

  /// Unpacks keys by a table of codes. Gives those whose scales are too far apart or too extreme.
  __mmask16 Unpack(const uint8_t* const* keys, int64_t width, __m512i table) {
    alignas(64) uint32_t rows[kWords][16];
    const __mmask16 unfit = ShareScales(keys, width, rows);
    for (int64_t k = 0; k < width; k += 128) {
      const int64_t bytes = Least(width - k, 128) / 2;
      const __mmask64 inside = ~uint64_t{0} >> (64 - bytes);
      for (int i = 0; i < kCount; ++i) {
        UnpackPairs(_mm512_maskz_loadu_epi8(inside, keys[i] + k / 2), rows[k / 128][i], table,
                    codes[i] + k, codes[i] + k + bytes);
      }
    }
    return unfit;
  }

 private:
  // Sets `scales`, and for each key and four blocks how far their scales are above it, times 16.
  __mmask16 ShareScales(const uint8_t* const* keys, int64_t width, uint32_t (&rows)[kWords][16]) {
    const int64_t blocks = width / 32, words = (blocks + 3) / 4;
    for (int64_t word = 0; word < words; ++word) {
      for (int i = 0; i < 16; ++i) {  // past the last key, its own
        const uint8_t* of_key = keys[i < kCount ? i : kCount - 1] + width / 2 + 4 * word;
        rows[word][i] = FourScales(of_key, blocks - 4 * word);
      }
    }
    __m512i least = _mm512_load_si512(rows[0]);
    for (int64_t word = 1; word < words; ++word)
      least = _mm512_min_epu8(least, _mm512_load_si512(rows[word]));
    least = LeastOfFour(least);
    const __m512i exponents = _mm512_and_si512(least, _mm512_set1_epi32(255));
    __mmask16 unfit = ExtremeScales(exponents);
    for (int64_t word = 0; word < words; ++word) {
      const __m512i fold = _mm512_sub_epi8(_mm512_load_si512(rows[word]), least);
      unfit |= FarAbove(fold);
      _mm512_store_si512(rows[word], _mm512_slli_epi32(fold, 4));
    }
    _mm512_store_si512(scales, _mm512_slli_epi32(exponents, 23));
    return unfit;
  }

  // Up to four scales; past the last, its own.
  static uint32_t FourScales(const uint8_t* scales, int64_t count) {
    if (count >= 4) return LoadUnaligned<uint32_t>(scales);
    uint8_t four[4];
    for (int64_t i = 0; i < 4; ++i) four[i] = scales[Least(i, count - 1)];
    return LoadUnaligned<uint32_t>(four);
  }
};

constexpr int kFoldedKeys = 8;  // multiplied at once

/// Dots of kFoldedKeys keys, unpacked with biased codes, with 16 * kGroups heads from `head` on.
/// `codes` and `offsets` are those of a FoldedIndexQuery.
template <int kGroups>
[[gnu::always_inline]] inline void MultiplyFolded(const int8_t* codes, const int32_t* offsets,
                                                  int64_t padded_heads, int64_t width, int64_t head,
                                                  const uint8_t (*keys)[kMaxIndexWidth],
                                                  __m512i (&dots)[kGroups][kFoldedKeys]) {
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    const __m512i first = _mm512_loadu_si512(offsets + head + 16 * g);
#pragma GCC unroll 8
    for (int i = 0; i < kFoldedKeys; ++i) dots[g][i] = first;
  }
  const int64_t step = padded_heads * 4;
  codes += head * 4;
  for (int64_t k = 0; k < width; k += 32) {
#pragma GCC unroll 8
    for (int64_t quad = 0; quad < 8; ++quad, codes += step) {
      __m512i signed_codes[kGroups];
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) signed_codes[g] = _mm512_loadu_si512(codes + 64 * g);
#pragma GCC unroll 8
      for (int i = 0; i < kFoldedKeys; ++i) {
        const __m512i key = _mm512_set1_epi32(LoadUnaligned<int32_t>(keys[i] + k + 4 * quad));
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g)
          dots[g][i] = _mm512_dpbusd_epi32(dots[g][i], key, signed_codes[g]);
      }
    }
  }
}

/// The 16 lanes of two keys, each adding every 16th head. Rounding two vectors to one of BF16
/// numbers and taking those apart again by shifts deals them out twice, which puts lanes 0, 4, 8,
/// 12 of the first key, the same of the second, lanes 1, 5, 9, 13 of the first, of the second into
/// `even`, and those 2 and 3 further into `odd`.
struct LanePair {
  __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
};

/// The weights of 16 heads as AddTerms wants them.
struct TermWeights {
  __m512 even, odd;

  explicit TermWeights(const float* weights) {
    const __m512 all = _mm512_loadu_ps(weights);
    const __m512i heads = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
    even = _mm512_permutexvar_ps(heads, all);
    odd = _mm512_permutexvar_ps(_mm512_add_epi32(heads, _mm512_set1_epi32(1)), all);
  }
};

/// The BF16 numbers at even places of 32, and at odd ones.
inline __m512 EvenFloats(__m512i words) { return AsFloats(_mm512_slli_epi32(words, 16)); }
inline __m512 OddFloats(__m512i words) {
  return AsFloats(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

/// 32 numbers rounded to BF16, those of `low` first. Unlike RoundBf16 it flushes denormals.
inline __m512i RoundPair(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/// Adds the terms of 16 heads, from their dots with two keys.
inline void AddTerms(__m512i first, __m512i second, const TermWeights& weights, LanePair& lanes) {
  // The sign of a BF16 number is that of the word.
  const __m512i dots = _mm512_max_epi16(
      RoundPair(_mm512_cvtepi32_ps(first), _mm512_cvtepi32_ps(second)), _mm512_setzero_si512());
  const __m512i terms = RoundPair(_mm512_mul_ps(EvenFloats(dots), weights.even),
                                  _mm512_mul_ps(OddFloats(dots), weights.odd));
  lanes.even = _mm512_add_ps(lanes.even, EvenFloats(terms));
  lanes.odd = _mm512_add_ps(lanes.odd, OddFloats(terms));
}

/// FoldLanes of eight keys: the first of each pair, then the second ones.
inline __m256 FoldPairs(const LanePair (&pairs)[4]) {
  const auto add_halves = [](__m512 a, __m512 b) {  // of each quarter, those of a, those of b
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  };
  const auto add_neighbours = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
  };
  // Lanes 8 apart, 4 apart, 2 apart and 1 apart.
  __m512 four[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    four[i] = add_neighbours(add_halves(pairs[2 * i].even, pairs[2 * i + 1].even),
                             add_halves(pairs[2 * i].odd, pairs[2 * i + 1].odd));
  }
  const __m512 two = add_halves(four[0], four[1]);
  return _mm256_add_ps(_mm512_castps512_ps256(two), _mm512_extractf32x8_ps(two, 1));
}

/// RoundBf16 of each, times the scale that is left.
inline __m256 FinishScores(__m256 sums, __m256 scales) {
  const __m256i rounded =
      _mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)_mm256_cvtneps_pbh(sums)), 16);
  return _mm256_mul_ps(_mm256_castsi256_ps(rounded), scales);
}

}  // namespace

}  // namespace toaster::kernels::avx512
