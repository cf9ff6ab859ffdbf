#pragma once

// The indexer's scores in the AVX2 table. Included by avx2.cc only.

#include "backend/cpu/kernels/avx2_vector.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::avx2 {

namespace {

/// 16 bytes of E2M1 codes to 32 bytes: twice the value, in the order of the codes.
inline __m256i Doubled(const uint8_t* packed) {
  const __m128i table = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const __m128i bytes = LoadBytes16(packed);
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(bytes, nibble));
  const __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
  return _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high));
}

float IndexScore(const IndexQuery& query, const uint8_t* key) {
  const uint8_t* key_scales = key + query.width / 2;
  __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t head = 0; head < query.padded_heads; head += 8) {
    __m256 dots = _mm256_setzero_ps();
    for (int64_t block = 0; block < query.width / 32; ++block) {
      alignas(32) int quads[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(quads), Doubled(key + 16 * block));
      // Sums of two products, at most 288 each, fit 16 bits eight times over.
      __m256i sums = _mm256_setzero_si256();
      for (int quad = 0; quad < 8; ++quad) {
        const __m256i codes =
            LoadBytes32(query.codes + ((8 * block + quad) * query.padded_heads + head) * 4);
        const __m256i k = _mm256_set1_epi32(quads[quad]);
        sums = _mm256_add_epi16(
            sums, _mm256_maddubs_epi16(_mm256_abs_epi8(k), _mm256_sign_epi8(codes, k)));
      }
      const __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
      const __m256 scale =
          _mm256_mul_ps(_mm256_loadu_ps(query.scales + block * query.padded_heads + head),
                        _mm256_set1_ps(E8m0ToFloat(key_scales[block])));
      dots = _mm256_add_ps(dots, _mm256_mul_ps(dot, scale));
    }
    // The operand order keeps NaN and -0.
    const __m256 positive = _mm256_max_ps(_mm256_setzero_ps(), RoundToBf16(dots));
    const __m256 term = _mm256_mul_ps(positive, _mm256_loadu_ps(query.weights + head));
    __m256& lane = lanes[head / 8 % 2];
    lane = _mm256_add_ps(lane, RoundToBf16(term));
  }
  return RoundBf16(Fold(lanes[0], lanes[1]));
}

void IndexScores(const IndexQuery& query, const uint8_t* keys, int64_t count, float* out) {
  const int64_t key_bytes = query.width / 2 + query.width / 32;
  for (int64_t i = 0; i < count; ++i) out[i] = IndexScore(query, keys + i * key_bytes);
}

}  // namespace

}  // namespace toaster::kernels::avx2
