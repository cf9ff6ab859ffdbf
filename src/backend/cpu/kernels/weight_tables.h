#pragma once

// Tables of expanded weights, made by the compiler. Every kernel file has its own copy: see
// kernels.h on why nothing is shared.

#include <cstdint>

namespace toaster::kernels {

/// BF16 bits of every E2M1 code times every scale byte, as the roundings of tensor/number_formats.h
/// give them while denormals are flushed: below 2^-126 and with byte 0 (itself a denormal) a signed
/// zero, beyond the largest number infinity, with byte 255 NaN. Each row of 16 stands there twice,
/// since vpermw looks at five bits.
struct ScaledE2m1 {
  alignas(64) uint16_t bits[256][32];
};

static constexpr ScaledE2m1 MakeScaledE2m1() {
  // 0.5 ... 6 as exponent and BF16 mantissa bit.
  constexpr int kExponent[8] = {0, 126, 127, 127, 128, 128, 129, 129};
  constexpr int kMantissa[8] = {0, 0, 0, 64, 0, 64, 0, 64};
  ScaledE2m1 table = {};
  for (int byte = 0; byte < 256; ++byte) {
    for (int code = 0; code < 32; ++code) {
      const int magnitude = code & 7, exponent = kExponent[magnitude] + byte - 127;
      int bits = 0;
      if (byte == 255) {
        bits = 0x7FC0;
      } else if (magnitude != 0 && byte != 0 && exponent > 0) {
        bits = exponent < 255 ? exponent << 7 | kMantissa[magnitude] : 0x7F80;
      }
      table.bits[byte][code] = static_cast<uint16_t>(bits | (code & 8 ? 0x8000 : 0));
    }
  }
  return table;
}

static constexpr ScaledE2m1 kScaledE2m1 = MakeScaledE2m1();

/// BF16 bits of the E4M3 codes 0..127; all are normal numbers, zero or NaN.
struct E4m3Magnitudes {
  alignas(64) uint16_t bits[128];
};

static constexpr E4m3Magnitudes MakeE4m3Magnitudes() {
  E4m3Magnitudes table = {};
  for (int code = 0; code < 128; ++code) {
    int exponent = (code >> 3) + 120, mantissa = code & 7;
    if (code < 8 && code > 0) {  // multiples of 2^-9
      exponent = 121;
      while (mantissa < 8) mantissa *= 2, --exponent;
      mantissa &= 7;
    }
    table.bits[code] = static_cast<uint16_t>(exponent << 7 | mantissa << 4);
  }
  table.bits[0] = 0;
  table.bits[127] = 0x7FC0;
  return table;
}

static constexpr E4m3Magnitudes kE4m3Magnitudes = MakeE4m3Magnitudes();

}  // namespace toaster::kernels
