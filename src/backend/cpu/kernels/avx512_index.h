#pragma once

// The indexer's scores in the AVX-512 table. Included by avx512_bf16.cc only.

#include "backend/cpu/kernels/avx512_matmul.h"
#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kKeys = 4;        // scored at once
constexpr int kFoldedKeys = 8;  // the same of those whose blocks share a scale
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

// The scores of the keys first ... first + kKeys - 1 as far as they are below `count`, in general.
void ScoreKeys(const IndexQuery& query, const uint8_t* keys, int64_t first, int64_t count,
               float* out) {
  const int64_t key_bytes = query.width / 2 + query.width / 32;
  UnpackedKeys unpacked;
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

/// Keys whose blocks share one scale after the larger ones went into the codes.
struct FoldedKeys {
  alignas(64) uint8_t codes[kFoldedKeys][kMaxIndexWidth];  ///< biased, in the order of UnpackedKeys
  float scale[kFoldedKeys];
};

// Doubled values of the E2M1 codes times 1, 2, 4 and 8, biased.
alignas(64) constexpr uint8_t kFoldedCodes[4][16] = {
    {96, 97, 98, 99, 100, 102, 104, 108, 96, 95, 94, 93, 92, 90, 88, 84},
    {96, 98, 100, 102, 104, 108, 112, 120, 96, 94, 92, 90, 88, 84, 80, 72},
    {96, 100, 104, 108, 112, 120, 128, 144, 96, 92, 88, 84, 80, 72, 64, 48},
    {96, 104, 112, 120, 128, 144, 160, 192, 96, 88, 80, 72, 64, 48, 32, 0}};
static_assert(kFoldedCodes[0][0] == kFoldedIndexBias);

// The scales of up to four blocks from `block` on; past the last, its own.
inline __m128i FourScales(const uint8_t* scales, int64_t block, int64_t blocks) {
  if (block + 4 <= blocks) return _mm_cvtsi32_si128(LoadUnaligned<int32_t>(scales + block));
  uint8_t four[4];
  for (int64_t i = 0; i < 4; ++i) four[i] = scales[Least(block + i, blocks - 1)];
  return _mm_cvtsi32_si128(LoadUnaligned<int32_t>(four));
}

// False if the key's scales are too far apart or too extreme. Inlined, so that a constant width
// leaves no loop.
[[gnu::always_inline]] inline bool FoldKey(const uint8_t* key, int64_t width, int index,
                                           FoldedKeys& keys) {
  const uint8_t* scales = key + width / 2;
  const int64_t blocks = width / 32;
  __m128i least = FourScales(scales, 0, blocks);
  for (int64_t block = 4; block < blocks; block += 4)
    least = _mm_min_epu8(least, FourScales(scales, block, blocks));
  least = _mm_min_epu8(least, _mm_rol_epi32(least, 16));
  least = _mm_min_epu8(least, _mm_rol_epi32(least, 8));
  const int scale = _mm_cvtsi128_si32(least) & 255;
  constexpr int kMostScale = 127 + kPlainExponent - kMostFold;
  bool folds = scale >= 127 - kPlainExponent && scale <= kMostScale;
  const __m512i table = _mm512_load_si512(kFoldedCodes), nibble = _mm512_set1_epi8(15);
  const __m512i spread =
      _mm512_set_epi64(0x0303030303030303, 0x0303030303030303, 0x0202020202020202,
                       0x0202020202020202, 0x0101010101010101, 0x0101010101010101, 0, 0);
  for (int64_t block = 0; block < blocks; block += 4) {
    const __m128i fold = _mm_sub_epi8(FourScales(scales, block, blocks), least);
    folds = folds && (_mm_cvtsi128_si32(fold) & ~(kMostFold * 0x01010101)) == 0;
    // Four times 16 places of the table, chosen by each block's fold.
    const __m512i row =
        _mm512_permutexvar_epi8(spread, _mm512_castsi128_si512(_mm_slli_epi16(fold, 4)));
    const __mmask64 inside = ~uint64_t{0} >> (64 - Least(blocks - block, 4) * 16);
    const __m512i bytes = _mm512_maskz_loadu_epi8(inside, key + 16 * block);
    constexpr int kAndOr = 0xEA;  // (a & b) | c
    const __m512i low =
        _mm512_permutexvar_epi8(_mm512_ternarylogic_epi32(bytes, nibble, row, kAndOr), table);
    const __m512i high = _mm512_permutexvar_epi8(
        _mm512_ternarylogic_epi32(_mm512_srli_epi16(bytes, 4), nibble, row, kAndOr), table);
    _mm512_store_si512(keys.codes[index] + 32 * block, _mm512_unpacklo_epi8(low, high));
    _mm512_store_si512(keys.codes[index] + 32 * block + 64, _mm512_unpackhi_epi8(low, high));
  }
  keys.scale[index] = E8m0ToFloat(static_cast<uint8_t>(scale));
  return folds;
}

// RoundBf16 of numbers that are far from the limits of a float: what is added makes a step of the
// sum a step of BF16.
inline __m512 RoundPlainToBf16(__m512 x) {
  const __m512i exponent = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7F800000));
  const __m512 large =
      _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32((16 << 23) + (1 << 22))));
  return _mm512_sub_ps(_mm512_add_ps(x, large), large);
}

/// Adds the terms of 16 * kGroups heads to the lanes of each key, less the keys' scales. A call of
/// its own, so that the lanes stay in memory and the sums in registers.
template <int kGroups>
[[gnu::noinline]] void AddFoldedHeads(const IndexQuery& query, const FoldedKeys& keys, int64_t head,
                                      __m512 (&lanes)[kFoldedKeys]) {
  __m512i sums[kGroups][kFoldedKeys];
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    const __m512i offsets = _mm512_loadu_si512(query.folded.offsets + head + 16 * g);
#pragma GCC unroll 8
    for (int i = 0; i < kFoldedKeys; ++i) sums[g][i] = offsets;
  }
  const int64_t step = query.padded_heads * 4;
  for (int64_t block = 0; block < query.width / 32; ++block) {
    const int8_t* codes = query.folded.codes + 8 * block * step + head * 4;
    const int64_t at = block / 4 * 128 + block % 4 * 16;
#pragma GCC unroll 8
    for (int64_t quad = 0; quad < 8; ++quad, codes += step) {
      __m512i signed_codes[kGroups];
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) signed_codes[g] = _mm512_loadu_si512(codes + 64 * g);
#pragma GCC unroll 8
      for (int i = 0; i < kFoldedKeys; ++i) {
        const __m512i key = _mm512_set1_epi32(
            LoadUnaligned<int32_t>(keys.codes[i] + at + quad / 4 * 64 + quad % 4 * 4));
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g)
          sums[g][i] = _mm512_dpbusd_epi32(sums[g][i], key, signed_codes[g]);
      }
    }
  }
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    const __m512 weights = _mm512_loadu_ps(query.folded.weights + head + 16 * g);
#pragma GCC unroll 8
    for (int i = 0; i < kFoldedKeys; ++i) {
      const __m512i positive = _mm512_max_epi32(sums[g][i], _mm512_setzero_si512());
      const __m512 dot = RoundPlainToBf16(_mm512_cvtepi32_ps(positive));
      lanes[i] = _mm512_add_ps(lanes[i], RoundPlainToBf16(_mm512_mul_ps(dot, weights)));
    }
  }
}

void IndexScores(const IndexQuery& query, const uint8_t* keys, int64_t count, float* out) {
  const int64_t key_bytes = query.width / 2 + query.width / 32;
  for (int64_t first = 0; first < count; first += kFoldedKeys) {
    FoldedKeys folded;
    bool folds = query.folded.codes != nullptr;
    constexpr int64_t kFlashWidth = 128;
    for (int i = 0; i < kFoldedKeys && folds; ++i) {  // the last key fills up a group
      const uint8_t* key = keys + Least(first + i, count - 1) * key_bytes;
      folds = query.width == kFlashWidth ? FoldKey(key, kFlashWidth, i, folded)
                                         : FoldKey(key, query.width, i, folded);
    }
    if (!folds) {
      for (int64_t next = first; next < Least(first + kFoldedKeys, count); next += kKeys)
        ScoreKeys(query, keys, next, Least(first + kFoldedKeys, count), out);
      continue;
    }
    // All scales are powers of two and every number far from the limits of a float: the dots stay
    // integers, the heads' scales are in the weights, and the key's comes last.
    __m512 lanes[kFoldedKeys];
    for (__m512& lane : lanes) lane = _mm512_setzero_ps();
    int64_t head = 0;
    for (; head + 32 <= query.padded_heads; head += 32)
      AddFoldedHeads<2>(query, folded, head, lanes);
    if (head < query.padded_heads) AddFoldedHeads<1>(query, folded, head, lanes);
    float scores[kFoldedKeys];
    FoldEight(lanes, lanes + 4, scores, scores + 4);
    for (int64_t i = 0; i < Least(count - first, kFoldedKeys); ++i)
      out[first + i] = RoundBf16(scores[i]) * folded.scale[i];
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
