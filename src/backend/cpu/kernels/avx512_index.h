#pragma once

// The indexer's scores by AVX-512 VNNI.

#include "backend/cpu/kernels/avx512_folded_keys.h"
#include "backend/cpu/kernels/avx512_matmul.h"
#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/key_cursor.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kKeys = 4;  // scored at once; kFoldedKeys of those whose blocks share a scale
constexpr int64_t kMaxBlocks = kMaxIndexWidth / 32;

/// Some keys unpacked. The query's codes are biased, since vpdpbusd wants unsigned bytes; `offset`
/// takes this away again. The codes of a block are two halves of 16, a half of four blocks in a
/// vector.
struct UnpackedKeys {
  alignas(64) int8_t codes[kKeys][kMaxIndexWidth];  ///< doubled values, [width/128, half, 4, 16]
  alignas(64) int32_t offset[kKeys][kMaxBlocks];  ///< -kIndexBias times the sum of a block's codes
  float scale[kKeys][kMaxBlocks];

  /// The codes [4 * quad, 4 * quad + 4) of a block.
  int32_t Quad(int key, int64_t block, int quad) const {
    const int64_t at = block / 4 * 128 + quad / 4 * 64 + block % 4 * 16 + quad % 4 * 4;
    return LoadUnaligned<int32_t>(codes[key] + at);
  }
};

inline void UnpackKey(const uint8_t* key, int64_t width, int index, UnpackedKeys& keys) {
  const __m512i table = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int64_t k = 0; k < width; k += 128) {
    const __mmask64 inside = ~uint64_t{0} >> (64 - Least(width - k, 128) / 2);
    const __m512i bytes = _mm512_maskz_loadu_epi8(inside, key + k / 2);
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(bytes, nibble));
    const __m512i high =
        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble));
    _mm512_store_si512(keys.codes[index] + k, _mm512_unpacklo_epi8(low, high));
    _mm512_store_si512(keys.codes[index] + k + 64, _mm512_unpackhi_epi8(low, high));
    const __m512i bias = _mm512_set1_epi8(kIndexBias), zero = _mm512_setzero_si512();
    __m512i sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, bias, low), bias, high);
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_CDAB));
    // One of each quarter.
    const __m512i quarters = _mm512_maskz_compress_epi32(0x1111, _mm512_sub_epi32(zero, sum));
    _mm_store_si128(reinterpret_cast<__m128i*>(keys.offset[index] + k / 32),
                    _mm512_castsi512_si128(quarters));
  }
  for (int64_t block = 0; block < width / 32; ++block) {
    keys.scale[index][block] = E8m0ToFloat(key[width / 2 + block]);
  }
}

/// Adds the terms of 16 * kGroups heads to the lanes of each key.
template <int kGroups>
inline void AddHeads(const IndexQuery& query, const UnpackedKeys& keys, int64_t head,
                     __m512 (&lanes)[kKeys]) {
  __m512 dots[kGroups][kKeys];
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) dots[g][i] = _mm512_setzero_ps();
  }
  for (int64_t block = 0; block < query.width / 32; ++block) {
    __m512i sums[kGroups][kKeys];
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) sums[g][i] = _mm512_set1_epi32(keys.offset[i][block]);
    }
    const uint8_t* codes = query.codes + (8 * block * query.padded_heads + head) * 4;
    for (int quad = 0; quad < 8; ++quad, codes += query.padded_heads * 4) {
      __m512i unsigned_codes[kGroups];
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        unsigned_codes[g] = _mm512_loadu_si512(codes + 64 * g);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kKeys; ++i) {
        const __m512i key = _mm512_set1_epi32(keys.Quad(i, block, quad));
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
          sums[g][i] = _mm512_dpbusd_epi32(sums[g][i], unsigned_codes[g], key);
        }
      }
    }
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const __m512 query_scale =
          _mm512_loadu_ps(query.scales + block * query.padded_heads + head + 16 * g);
#pragma GCC unroll 4
      for (int i = 0; i < kKeys; ++i) {
        const __m512 scale = _mm512_mul_ps(query_scale, _mm512_set1_ps(keys.scale[i][block]));
        dots[g][i] =
            _mm512_add_ps(dots[g][i], _mm512_mul_ps(_mm512_cvtepi32_ps(sums[g][i]), scale));
      }
    }
  }
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    const __m512 weights = _mm512_loadu_ps(query.weights + head + 16 * g);
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) {
      // The operand order keeps NaN and -0.
      const __m512 positive = _mm512_max_ps(_mm512_setzero_ps(), RoundResultToBf16(dots[g][i]));
      lanes[i] = _mm512_add_ps(lanes[i], RoundResultToBf16(_mm512_mul_ps(positive, weights)));
    }
  }
}

/// The scores of kKeys keys in general.
void ScoreKeys(const IndexQuery& query, const uint8_t* const* keys, float* scores) {
  UnpackedKeys unpacked;
  for (int i = 0; i < kKeys; ++i) UnpackKey(keys[i], query.width, i, unpacked);
  __m512 lanes[kKeys];
  for (__m512& lane : lanes) lane = _mm512_setzero_ps();
  int64_t head = 0;
  for (; head + 32 <= query.padded_heads; head += 32) AddHeads<2>(query, unpacked, head, lanes);
  if (head < query.padded_heads) AddHeads<1>(query, unpacked, head, lanes);
  FoldEight(lanes, lanes, scores, scores);
  for (int i = 0; i < kKeys; ++i) scores[i] = RoundBf16(scores[i]);
}

/// Adds the terms of 16 * kGroups heads to the lanes of the keys, i and i + 4 together. A call of
/// its own, so that the lanes stay in memory and the dots in registers.
template <int kGroups>
[[gnu::noinline]] void AddFoldedHeads(const IndexQuery& query,
                                      const uint8_t (&keys)[kFoldedKeys][kMaxIndexWidth],
                                      int64_t head, LanePair (&lanes)[kFoldedKeys / 2]) {
  __m512i dots[kGroups][kFoldedKeys];
  MultiplyFolded<kGroups>(query.folded.codes, query.folded.offsets, query.padded_heads, query.width,
                          head, keys, dots);
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    const TermWeights weights(query.folded.weights + head + 16 * g);
#pragma GCC unroll 4
    for (int i = 0; i < kFoldedKeys / 2; ++i)
      AddTerms(dots[g][i], dots[g][i + 4], weights, lanes[i]);
  }
}

/// The scores of kFoldedKeys keys.
__m256 ScoreFoldedKeys(const IndexQuery& query, const uint8_t* const* keys) {
  FoldedKeys<kFoldedKeys> folded;
  if (query.folded.codes == nullptr || folded.Unpack(keys, query.width, BiasedCodes()) != 0) {
    alignas(32) float scores[kFoldedKeys];
    for (int i = 0; i < kFoldedKeys; i += kKeys) ScoreKeys(query, keys + i, scores + i);
    return _mm256_load_ps(scores);
  }
  LanePair lanes[kFoldedKeys / 2];
  int64_t head = 0;
  for (; head + 32 <= query.padded_heads; head += 32)
    AddFoldedHeads<2>(query, folded.codes, head, lanes);
  if (head < query.padded_heads) AddFoldedHeads<1>(query, folded.codes, head, lanes);
  return FinishScores(FoldPairs(lanes), _mm256_load_ps(folded.scales));
}

/// The first `count` of eight.
inline __mmask8 FirstOfEight(int64_t count) {
  return static_cast<__mmask8>(count >= 8 ? 255 : (1 << count) - 1);
}

void IndexScores(const IndexQuery& query, const KeyPages& keys, int64_t count, float* out) {
  if (count == 0) return;
  KeyCursor cursor(keys, count, query.width / 2 + query.width / 32);
  for (int64_t first = 0; first < count; first += kFoldedKeys) {
    const uint8_t* group[kFoldedKeys];
    cursor.Next(group);  // the last key fills up a group
    _mm256_mask_storeu_ps(out + first, FirstOfEight(count - first), ScoreFoldedKeys(query, group));
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
