#pragma once

// The indexer's scores in the AVX-512 table. Included by avx512_bf16.cc only.

#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::avx512 {

namespace {

/// 16 bytes of E2M1 codes to 32 bytes: twice the value plus 12, in the order of the codes.
inline __m256i DoubledPlus12(const uint8_t* packed) {
  const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(bytes, nibble));
  const __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
  return _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high));
}

float IndexScore(const IndexQuery& query, const uint8_t* key) {
  const uint8_t* key_scales = key + query.width / 2;
  __m512 lanes = _mm512_setzero_ps();
  for (int64_t head = 0; head < query.padded_heads; head += 16) {
    __m512 dots = _mm512_setzero_ps();
    for (int64_t block = 0; block < query.width / 32; ++block) {
      alignas(32) int quads[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(quads), DoubledPlus12(key + 16 * block));
      __m512i sums = _mm512_setzero_si512(), offset = _mm512_setzero_si512();
      for (int quad = 0; quad < 8; ++quad) {
        const __m512i codes =
            _mm512_loadu_si512(query.codes + ((8 * block + quad) * query.padded_heads + head) * 4);
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(quads[quad]), codes);
        offset = _mm512_dpbusd_epi32(offset, _mm512_set1_epi8(12), codes);
      }
      const __m512 dot = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, offset));
      const __m512 scale =
          _mm512_mul_ps(_mm512_loadu_ps(query.scales + block * query.padded_heads + head),
                        _mm512_set1_ps(E8m0ToFloat(key_scales[block])));
      dots = _mm512_add_ps(dots, _mm512_mul_ps(dot, scale));
    }
    // The operand order keeps NaN and -0.
    const __m512 positive = _mm512_max_ps(_mm512_setzero_ps(), RoundToBf16(dots));
    const __m512 term = _mm512_mul_ps(positive, _mm512_loadu_ps(query.weights + head));
    lanes = _mm512_add_ps(lanes, RoundToBf16(term));
  }
  return RoundBf16(Fold(lanes));
}

void IndexScores(const IndexQuery& query, const uint8_t* keys, int64_t count, float* out) {
  const int64_t key_bytes = query.width / 2 + query.width / 32;
  for (int64_t i = 0; i < count; ++i) out[i] = IndexScore(query, keys + i * key_bytes);
}

}  // namespace

}  // namespace toaster::kernels::avx512
