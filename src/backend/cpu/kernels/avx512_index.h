#pragma once

// The indexer's scores in the AVX-512 table. Included by avx512_bf16.cc only.

#include "backend/cpu/kernels/avx512_matmul.h"
#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kKeys = 4;  // scored at once
constexpr int64_t kMaxBlocks = kMaxIndexWidth / 32;

/// Some keys unpacked. The query's codes get 12 added to become unsigned bytes for vpdpbusd;
/// `offset` takes this away again. The codes of a block are two halves of 16, a half of four blocks
/// in a vector.
struct UnpackedKeys {
  alignas(64) int8_t codes[kKeys][kMaxIndexWidth];  ///< doubled values, [width/128, half, 4, 16]
  alignas(64) int32_t offset[kKeys][kMaxBlocks];    ///< -12 times the sum of a block's codes
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
    const __m512i twelve = _mm512_set1_epi8(12), zero = _mm512_setzero_si512();
    __m512i sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, twelve, low), twelve, high);
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
  const __m512i bias = _mm512_set1_epi8(12);
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
    const int8_t* codes = query.codes + (8 * block * query.padded_heads + head) * 4;
    for (int quad = 0; quad < 8; ++quad, codes += query.padded_heads * 4) {
      __m512i unsigned_codes[kGroups];
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        unsigned_codes[g] = _mm512_add_epi8(_mm512_loadu_si512(codes + 64 * g), bias);
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

void IndexScores(const IndexQuery& query, const uint8_t* keys, int64_t count, float* out) {
  const int64_t key_bytes = query.width / 2 + query.width / 32;
  UnpackedKeys unpacked;
  for (int64_t first = 0; first < count; first += kKeys) {
    for (int i = 0; i < kKeys; ++i) {  // the last key fills up a group
      UnpackKey(keys + Least(first + i, count - 1) * key_bytes, query.width, i, unpacked);
    }
    __m512 lanes[kKeys];
    for (__m512& lane : lanes) lane = _mm512_setzero_ps();
    int64_t head = 0;
    for (; head + 32 <= query.padded_heads; head += 32) AddHeads<2>(query, unpacked, head, lanes);
    if (head < query.padded_heads) AddHeads<1>(query, unpacked, head, lanes);
    float scores[kKeys];
    FoldEight(lanes, lanes, scores, scores);
    for (int64_t i = 0; i < Least(count - first, kKeys); ++i) out[first + i] = RoundBf16(scores[i]);
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
