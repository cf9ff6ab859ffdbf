#pragma once

// The indexer's scores in the AVX2 table. Included by avx2.cc only.

#include "backend/cpu/kernels/avx2_matmul.h"
#include "backend/cpu/kernels/avx2_vector.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/key_cursor.h"

namespace toaster::kernels::avx2 {

namespace {

constexpr int kKeys = 4;  // scored at once
constexpr int64_t kMaxBlocks = kMaxIndexWidth / 32;

/// Some keys unpacked. The query's codes are biased, since vpmaddubsw wants unsigned bytes;
/// `offset` takes this away again.
struct UnpackedKeys {
  alignas(32) int8_t codes[kKeys][kMaxIndexWidth];  ///< doubled values
  int32_t offset[kKeys][kMaxBlocks];  ///< -kIndexBias times the sum of a block's codes
  float scale[kKeys][kMaxBlocks];
};

inline void UnpackKey(const uint8_t* key, int64_t width, int index, UnpackedKeys& keys) {
  const __m128i table = DoubledE2m1();
  const __m128i nibble = _mm_set1_epi8(15);
  for (int64_t block = 0; block < width / 32; ++block) {
    const __m128i bytes = LoadBytes16(key + 16 * block);
    const __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(bytes, nibble));
    const __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
    StoreBytes16(keys.codes[index] + 32 * block, _mm_unpacklo_epi8(low, high));
    StoreBytes16(keys.codes[index] + 32 * block + 16, _mm_unpackhi_epi8(low, high));
    const __m128i bias = _mm_set1_epi16(-kIndexBias), one = _mm_set1_epi8(1);
    const __m128i pairs = _mm_maddubs_epi16(one, _mm_add_epi8(low, high));
    keys.offset[index][block] = Sum(_mm_madd_epi16(pairs, bias));
    keys.scale[index][block] = E8m0ToFloat(key[width / 2 + block]);
  }
}

/// The terms of 8 heads for each key.
inline void Terms(const IndexQuery& query, const UnpackedKeys& keys, int64_t head,
                  __m256 (&terms)[kKeys]) {
  __m256 dots[kKeys];
#pragma GCC unroll 4
  for (int i = 0; i < kKeys; ++i) dots[i] = _mm256_setzero_ps();
  for (int64_t block = 0; block < query.width / 32; ++block) {
    // Sums of two products, at most 576 each, fit 16 bits eight times over.
    __m256i sums[kKeys];
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) sums[i] = _mm256_setzero_si256();
    const uint8_t* codes = query.codes + (8 * block * query.padded_heads + head) * 4;
    for (int quad = 0; quad < 8; ++quad, codes += query.padded_heads * 4) {
      const __m256i unsigned_codes = LoadBytes32(codes);
#pragma GCC unroll 4
      for (int i = 0; i < kKeys; ++i) {
        const __m256i key =
            _mm256_set1_epi32(LoadUnaligned<int32_t>(keys.codes[i] + 32 * block + 4 * quad));
        sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(unsigned_codes, key));
      }
    }
    const __m256 query_scale = _mm256_loadu_ps(query.scales + block * query.padded_heads + head);
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) {
      const __m256i exact = _mm256_add_epi32(_mm256_madd_epi16(sums[i], _mm256_set1_epi16(1)),
                                             _mm256_set1_epi32(keys.offset[i][block]));
      const __m256 scale = _mm256_mul_ps(query_scale, _mm256_set1_ps(keys.scale[i][block]));
      dots[i] = _mm256_add_ps(dots[i], _mm256_mul_ps(_mm256_cvtepi32_ps(exact), scale));
    }
  }
  const __m256 weights = _mm256_loadu_ps(query.weights + head);
#pragma GCC unroll 4
  for (int i = 0; i < kKeys; ++i) {
    // The operand order keeps NaN and -0.
    const __m256 positive = _mm256_max_ps(_mm256_setzero_ps(), RoundToBf16(dots[i]));
    terms[i] = RoundToBf16(_mm256_mul_ps(positive, weights));
  }
}

void IndexScores(const IndexQuery& query, const KeyPages& keys, int64_t count, float* out) {
  if (count == 0) return;
  KeyCursor cursor(keys, count, query.width / 2 + query.width / 32);
  UnpackedKeys unpacked;
  for (int64_t first = 0; first < count; first += kKeys) {
    const uint8_t* group[kKeys];
    cursor.Next(group);  // the last key fills up a group
    for (int i = 0; i < kKeys; ++i) UnpackKey(group[i], query.width, i, unpacked);
    __m256 low[kKeys], high[kKeys], terms[kKeys];
    for (int i = 0; i < kKeys; ++i) low[i] = high[i] = _mm256_setzero_ps();
    for (int64_t head = 0; head < query.padded_heads; head += 16) {
      Terms(query, unpacked, head, terms);
      for (int i = 0; i < kKeys; ++i) low[i] = _mm256_add_ps(low[i], terms[i]);
      Terms(query, unpacked, head + 8, terms);
      for (int i = 0; i < kKeys; ++i) high[i] = _mm256_add_ps(high[i], terms[i]);
    }
    for (int64_t i = 0; i < Least(count - first, kKeys); ++i) {
      out[first + i] = RoundBf16(Fold(low[i], high[i]));
    }
  }
}

}  // namespace

}  // namespace toaster::kernels::avx2
