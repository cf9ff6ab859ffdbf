#pragma once

// From stored weights to floats in registers or BF16 numbers in memory. Included by avx2.cc only.

#include "backend/cpu/kernels/avx2_vector.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/scale_tiles.h"
#include "backend/cpu/kernels/weight_tables.h"

namespace toaster::kernels::avx2 {

namespace {

constexpr int kStep = 32;  // BF16 numbers that one step over all lanes takes

/// 32 weights or inputs as floats: odd and even ones of the lanes 0-7, odd and even ones of the
/// lanes 8-15. Inputs lie so in memory, too, 8 floats each.
struct Separated {
  __m256 part[4];
};

/// High and low bytes of the scaled E2M1 numbers apart, for vpshufb.
struct ScaledE2m1Bytes {
  alignas(64) uint8_t high[256][16];
  alignas(64) uint8_t low[256][16];
};

constexpr ScaledE2m1Bytes MakeScaledE2m1Bytes() {
  ScaledE2m1Bytes table = {};
  for (int byte = 0; byte < 256; ++byte) {
    for (int code = 0; code < 16; ++code) {
      table.high[byte][code] = static_cast<uint8_t>(kScaledE2m1.bits[byte][code] >> 8);
      table.low[byte][code] = static_cast<uint8_t>(kScaledE2m1.bits[byte][code] & 255);
    }
  }
  return table;
}

constexpr ScaledE2m1Bytes kScaledE2m1Bytes = MakeScaledE2m1Bytes();

/// 16 pairs of E4M3 codes, one in each word, as half-precision numbers of 2^-8 times their value
/// (NaN codes become ordinary numbers), converted to floats.
inline Separated FromE4m3Pairs(__m256i pairs) {
  // Sign, sign, seven bits of magnitude, zeros; the second sign is cleared.
  const __m256i keep = _mm256_set1_epi16(static_cast<int16_t>(0xBF80));
  const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(pairs, 1), keep);
  const __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(pairs, 8), 1), keep);
  return {{_mm256_cvtph_ps(_mm256_castsi256_si128(odd)),
           _mm256_cvtph_ps(_mm256_castsi256_si128(even)),
           _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1)),
           _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1))}};
}

/// Prepares an input of the few-token products: floats, separated. With scales (E4M3) multiplied by
/// them and by the 2^8 that FromE4m3Pairs leaves out; false, and the output unusable, where a
/// scaled weight or input would leave the normal range. Zeros, denormals, infinities and NaN stay.
inline bool SeparateInput(const uint16_t* x, int64_t inner, const uint8_t* scales, float* out) {
  // The magnitudes of E4M3 lie between 2^-9 and 1.75 * 2^8.
  constexpr int kLeastScale = 10, kLargestScale = 246;
  __m256i outside = _mm256_setzero_si256();
  for (int64_t k = 0; k < inner; k += 16) {
    const __m256i pairs = LoadBytes32(x + k);
    __m256 parts[2] = {OddOf(pairs), EvenOf(pairs)};
    if (scales != nullptr) {
      const int byte = scales[k / 128];
      if (byte < kLeastScale || byte > kLargestScale) return false;
      const int shift = byte - 127 + 8;
      const __m256 factor = _mm256_set1_ps(E8m0ToFloat(static_cast<uint8_t>(byte + 8)));
      for (__m256& part : parts) {
        const __m256i exponent =
            _mm256_and_si256(_mm256_srli_epi32(AsBits(part), 23), _mm256_set1_epi32(255));
        // Exponents e in [1, 254] become e + shift, which has to lie there as well.
        const __m256i least = _mm256_set1_epi32(shift < 0 ? -shift : 0);
        const __m256i largest = _mm256_set1_epi32(shift < 0 ? 254 : 254 - shift);
        const __m256i low = _mm256_andnot_si256(_mm256_cmpgt_epi32(exponent, least), exponent);
        const __m256i high = _mm256_and_si256(_mm256_cmpgt_epi32(exponent, largest),
                                              _mm256_cmpgt_epi32(_mm256_set1_epi32(255), exponent));
        outside = _mm256_or_si256(outside, _mm256_or_si256(low, high));
        part = _mm256_mul_ps(part, factor);
      }
    }
    _mm256_store_ps(out + k, parts[0]);
    _mm256_store_ps(out + k + 8, parts[1]);
  }
  return _mm256_testz_si256(outside, outside);
}

// Readers of one row of weights: At(k) gives the 32 weights from k on, scaled and exact for every
// code and scale byte.

class Bf16Row {
 public:
  static constexpr int kBits = 16;
  Bf16Row(const WeightRows& w, int64_t row) : data_(w.data + row * w.row_bytes), inner_(w.inner) {}
  Separated At(int64_t k) const {
    if (inner_ - k >= kStep) return FromBf16Pairs(data_ + 2 * k);
    uint16_t last[kStep] = {};
    for (int64_t i = 0; k + i < inner_; ++i) last[i] = LoadUnaligned<uint16_t>(data_ + 2 * (k + i));
    return FromBf16Pairs(last);
  }

  static Separated FromBf16Pairs(const void* pairs) {
    const auto* bytes = static_cast<const uint8_t*>(pairs);
    const __m256i low = LoadBytes32(bytes), high = LoadBytes32(bytes + 32);
    return {{OddOf(low), EvenOf(low), OddOf(high), EvenOf(high)}};
  }

 private:
  const uint8_t* data_;
  int64_t inner_;
};

class E4m3Row {
 public:
  static constexpr int kBits = 8;
  E4m3Row(const WeightRows& w, int64_t row)
      : data_(w.data + row * w.row_bytes), scales_(E4m3Scales(w, row)) {}
  Separated At(int64_t k) const {
    const __m256i codes = LoadBytes32(data_ + k);
    const __m256 scale = _mm256_set1_ps(E8m0ToFloat(scales_[k / 128]));
    Separated weights = FromE4m3Pairs(codes);
    // Two steps, because 2^8 times the scale may be too large a number.
    for (__m256& part : weights.part) {
      part = _mm256_mul_ps(_mm256_mul_ps(part, _mm256_set1_ps(256.0f)), scale);
    }
    const __m256i nan_code = _mm256_set1_epi8(0x7F);
    const __m256i nan = _mm256_cmpeq_epi8(_mm256_and_si256(codes, nan_code), nan_code);
    if (!_mm256_testz_si256(nan, nan)) {
      const __m256i odd = _mm256_srai_epi16(nan, 8);
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(nan, 8), 8);
      weights.part[0] = _mm256_or_ps(weights.part[0], Widened(_mm256_castsi256_si128(odd)));
      weights.part[1] = _mm256_or_ps(weights.part[1], Widened(_mm256_castsi256_si128(even)));
      weights.part[2] = _mm256_or_ps(weights.part[2], Widened(_mm256_extracti128_si256(odd, 1)));
      weights.part[3] = _mm256_or_ps(weights.part[3], Widened(_mm256_extracti128_si256(even, 1)));
    }
    return weights;
  }

 private:
  // Words of zeros or of ones to floats of such bits; ones are a NaN.
  static __m256 Widened(__m128i words) { return AsFloats(_mm256_cvtepi16_epi32(words)); }

  const uint8_t* data_;
  const uint8_t* scales_;
};

class E2m1Row {
 public:
  static constexpr int kBits = 4;
  E2m1Row(const WeightRows& w, int64_t row)
      : data_(w.data + row * w.row_bytes), scales_(w.scales + row * (w.inner / 32)) {}
  Separated At(int64_t k) const {
    const __m128i nibble = _mm_set1_epi8(15);
    const __m128i bytes = LoadBytes16(data_ + k / 2);
    const __m128i high = LoadBytes16(kScaledE2m1Bytes.high[scales_[k / 32]]);
    const __m128i low = LoadBytes16(kScaledE2m1Bytes.low[scales_[k / 32]]);
    const __m128i codes[2] = {_mm_and_si128(_mm_srli_epi16(bytes, 4), nibble),
                              _mm_and_si128(bytes, nibble)};
    Separated weights;
    for (int parity = 0; parity < 2; ++parity) {
      const __m128i high_bytes = _mm_shuffle_epi8(high, codes[parity]);
      const __m128i low_bytes = _mm_shuffle_epi8(low, codes[parity]);
      weights.part[parity] = FromBf16(_mm_unpacklo_epi8(low_bytes, high_bytes));
      weights.part[2 + parity] = FromBf16(_mm_unpackhi_epi8(low_bytes, high_bytes));
    }
    return weights;
  }

 private:
  const uint8_t* data_;
  const uint8_t* scales_;
};

}  // namespace

}  // namespace toaster::kernels::avx2
