#pragma once

// From stored weights to vectors of 32 BF16 numbers. Included by avx512_bf16.cc only.

#include <type_traits>

#include "backend/cpu/kernels/avx512_vector.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/weight_tables.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kStep = 32;  // BF16 numbers in a vector

// Cursors over some neighbouring rows of weights. Load gives the next kVectors vectors of row r,
// counted from the first one; Advance moves all rows on by as much.

/// BF16 weights, as they are.
struct Bf16Cursor {
  static constexpr int kVectors = 1;
  static constexpr int kBytes = 64;  ///< of a row, that one Load takes
  const uint8_t* data;
  int64_t row_bytes;

  Bf16Cursor(const WeightRows& w, int64_t first)
      : data(w.data + first * w.row_bytes), row_bytes(w.row_bytes) {}
  void Load(int64_t r, __m512i* out) const { out[0] = _mm512_loadu_si512(data + r * row_bytes); }
  /// The last, shorter vector of a row.
  __m512i LoadLast(int64_t r, __mmask32 inside) const {
    return _mm512_maskz_loadu_epi16(inside, data + r * row_bytes);
  }
  void Advance() { data += kBytes; }
};

/// E2M1 weights times their scales.
struct E2m1Cursor {
  static constexpr int kVectors = 4;
  static constexpr int kBytes = 64;
  const uint8_t* data;
  int64_t row_bytes;
  const uint8_t* scales;
  int64_t row_scales;
  __m512i order[kVectors];  ///< each byte of a quarter of the codes four times, for vpermb

  E2m1Cursor(const WeightRows& w, int64_t first)
      : data(w.data + first * w.row_bytes),
        row_bytes(w.row_bytes),
        scales(w.scales + first * (w.inner / 32)),
        row_scales(w.inner / 32) {
    const __m512i quarter =
        _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x01010101, 0x02020202, 0x03030303));
    const __m512i lanes = _mm512_setr_epi32(
        0, 0, 0, 0, 0x04040404, 0x04040404, 0x04040404, 0x04040404, 0x08080808, 0x08080808,
        0x08080808, 0x08080808, 0x0C0C0C0C, 0x0C0C0C0C, 0x0C0C0C0C, 0x0C0C0C0C);
    for (int i = 0; i < kVectors; ++i) {
      order[i] = _mm512_add_epi8(_mm512_add_epi8(quarter, lanes),
                                 _mm512_set1_epi8(static_cast<char>(16 * i)));
    }
  }
  void Load(int64_t r, __m512i* out) const {
    const __m512i codes = _mm512_loadu_si512(data + r * row_bytes);
    // A word's lowest five bits choose an entry, the fifth is noise: each second word is shifted by
    // four to have the high nibble there.
    const __m512i shifts = _mm512_set1_epi32(4 << 16);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      const __m512i pairs = _mm512_permutexvar_epi8(order[i], codes);
      const __m512i index = _mm512_srlv_epi16(pairs, shifts);
      out[i] = _mm512_permutexvar_epi16(
          index, _mm512_load_si512(kScaledE2m1.bits[scales[r * row_scales + i]]));
    }
  }
  void Advance() { data += kBytes, scales += kVectors; }
};

// The magnitudes of E4M3 lie between 2^-9 and 1.75 * 2^8: with the scale bytes between these all of
// them stay normal BF16 numbers.
constexpr int kLeastE4m3Scale = 10, kLargestE4m3Scale = 246;

/// High and low bytes of the BF16 numbers of the E4M3 codes 0..127 apart, for vpermi2b.
struct E4m3Bytes {
  alignas(64) uint8_t high[128];
  alignas(64) uint8_t low[128];
};

constexpr E4m3Bytes MakeE4m3Bytes() {
  E4m3Bytes table = {};
  for (int code = 0; code < 128; ++code) {
    table.high[code] = static_cast<uint8_t>(kE4m3Magnitudes.bits[code] >> 8);
    table.low[code] = static_cast<uint8_t>(kE4m3Magnitudes.bits[code] & 255);
  }
  return table;
}

constexpr E4m3Bytes kE4m3Bytes = MakeE4m3Bytes();

struct E4m3Table {
  __m512i high[2], low[2];

  E4m3Table() {
    for (int half = 0; half < 2; ++half) {
      high[half] = _mm512_load_si512(kE4m3Bytes.high + 64 * half);
      low[half] = _mm512_load_si512(kE4m3Bytes.low + 64 * half);
    }
  }
  /// The values times a scale; any scale.
  explicit E4m3Table(float scale) {
    for (int half = 0; half < 2; ++half) {
      __m256i high_bytes[2], low_bytes[2];
      for (int i = 0; i < 2; ++i) {
        const __m512i values = ScaleBf16(
            _mm512_load_si512(kE4m3Magnitudes.bits + 64 * half + 32 * i), _mm512_set1_ps(scale));
        high_bytes[i] = _mm512_cvtepi16_epi8(_mm512_srli_epi16(values, 8));
        low_bytes[i] = _mm512_cvtepi16_epi8(values);
      }
      high[half] = _mm512_inserti64x4(_mm512_castsi256_si512(high_bytes[0]), high_bytes[1], 1);
      low[half] = _mm512_inserti64x4(_mm512_castsi256_si512(low_bytes[0]), low_bytes[1], 1);
    }
  }

  /// 64 codes to two vectors.
  void Expand(const uint8_t* codes, __m512i* out) const {
    // unpacklo and unpackhi take alternate eights of bytes; this order makes theirs the right one.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i code = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(codes));
    const __m512i low_byte = _mm512_permutex2var_epi8(low[0], code, low[1]);
    // high | (code & 0x80)
    const __m512i high_byte =
        _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high[0], code, high[1]), code,
                                  _mm512_set1_epi8(static_cast<char>(0x80)), 0xF8);
    out[0] = _mm512_unpacklo_epi8(low_byte, high_byte);
    out[1] = _mm512_unpackhi_epi8(low_byte, high_byte);
  }
};

/// 32 BF16 numbers with E4M3 values times the scale of that byte.
inline __m512i ScaleE4m3(__m512i values, int byte) {
  if (byte < kLeastE4m3Scale || byte > kLargestE4m3Scale) {
    return ScaleBf16(values, _mm512_set1_ps(E8m0ToFloat(static_cast<uint8_t>(byte))));
  }
  // Add to the exponents of all but zeros and NaN, whose doubled bits are 0 and above 0xFF00.
  const __m512i doubled = _mm512_add_epi16(values, values);
  const __mmask32 finite = _mm512_cmplt_epu16_mask(_mm512_sub_epi16(doubled, _mm512_set1_epi16(1)),
                                                   _mm512_set1_epi16(static_cast<int16_t>(0xFEFF)));
  const __m512i shift = _mm512_set1_epi16(static_cast<int16_t>((byte - 127) * 128));
  return _mm512_mask_add_epi16(values, finite, values, shift);
}

/// E4M3 weights without their scales, which the input has taken over: see ScaleInput.
struct UnscaledE4m3Cursor {
  static constexpr int kVectors = 2;
  static constexpr int kBytes = 64;
  const uint8_t* data;
  int64_t row_bytes;
  E4m3Table table;

  UnscaledE4m3Cursor(const WeightRows& w, int64_t first)
      : data(w.data + first * w.row_bytes), row_bytes(w.row_bytes) {}
  void Load(int64_t r, __m512i* out) const { table.Expand(data + r * row_bytes, out); }
  void Advance() { data += kBytes; }
};

/// Multiplies an input by the scales of E4M3 weights, so that the codes can be used as they are:
/// products stay the same numbers. The output has 32 numbers every `step` numbers. False, and the
/// output unusable, where a scaled weight or input would leave BF16's normal range. Zeros,
/// denormals (zeros to vdpbf16ps), infinities and NaN stay.
inline bool ScaleInput(const WeightRows& w, const uint16_t* x, uint16_t* out, int64_t step) {
  const __m512i exponent_bits = _mm512_set1_epi16(0xFF);
  __mmask32 outside = 0;
  for (int64_t block = 0; block < w.inner / 128; ++block) {
    const int byte = w.scales[block];
    if (byte < kLeastE4m3Scale || byte > kLargestE4m3Scale) return false;
    const __m512i shift = _mm512_set1_epi16(static_cast<int16_t>(byte - 127));
    for (int64_t k = block * 128; k < block * 128 + 128; k += kStep, out += step) {
      const __m512i value = _mm512_load_si512(x + k);
      const __m512i exponent = _mm512_and_si512(_mm512_srli_epi16(value, 7), exponent_bits);
      // 1..254, that is: exponent - 1 < 254 without sign.
      const __m512i one = _mm512_set1_epi16(1), limit = _mm512_set1_epi16(254);
      const __mmask32 normal = _mm512_cmplt_epu16_mask(_mm512_sub_epi16(exponent, one), limit);
      const __m512i moved = _mm512_sub_epi16(_mm512_add_epi16(exponent, shift), one);
      outside |= _mm512_mask_cmpge_epu16_mask(normal, moved, limit);
      _mm512_store_si512(out,
                         _mm512_mask_add_epi16(value, normal, value, _mm512_slli_epi16(shift, 7)));
    }
  }
  return outside == 0;
}

// Rows [first, first + rows) of a matrix as the tiles of BlockedProduct: kGroup rows at a time,
// [step, row, 32]. Rows that are missing in the last group stay as they are.

template <int kGroup, typename Cursor>
void ExpandRowwise(const WeightRows& w, int64_t first, int64_t rows, uint16_t* tile) {
  const int64_t padded = RoundUp(w.inner, kStep);
  for (int64_t r = 0; r < rows; ++r) {
    Cursor weights(w, first + r);
    uint16_t* out = tile + r / kGroup * kGroup * padded + r % kGroup * kStep;
    int64_t k = 0;
    constexpr int64_t kAdvance = kStep * Cursor::kVectors;
    for (; k + kAdvance <= w.inner; k += kAdvance, weights.Advance()) {
      __m512i values[Cursor::kVectors];
      weights.Load(0, values);
#pragma GCC unroll 4
      for (int i = 0; i < Cursor::kVectors; ++i) {
        _mm512_store_si512(out + (k + i * kStep) * kGroup, values[i]);
      }
    }
    if constexpr (std::is_same_v<Cursor, Bf16Cursor>) {
      if (k < w.inner) {
        _mm512_store_si512(out + k * kGroup, weights.LoadLast(0, FirstWords(w.inner - k)));
      }
    }
  }
}

template <int kGroup>
void ExpandE4m3(const WeightRows& w, int64_t first, int64_t rows, uint16_t* tile) {
  for (int64_t block = 0; block < w.inner / 128; ++block) {
    const E4m3Table table(E8m0ToFloat(w.scales[block]));
    for (int64_t r = 0; r < rows; ++r) {
      const uint8_t* codes = w.data + (first + r) * w.row_bytes + block * 128;
      uint16_t* out = tile + (r / kGroup * w.inner + block * 128) * kGroup + r % kGroup * kStep;
      for (int half = 0; half < 2; ++half) {
        __m512i values[2];
        table.Expand(codes + 64 * half, values);
        _mm512_store_si512(out + (64 * half) * kGroup, values[0]);
        _mm512_store_si512(out + (64 * half + kStep) * kGroup, values[1]);
      }
    }
  }
}

}  // namespace

}  // namespace toaster::kernels::avx512
