#pragma once

// The number formats of a V4 checkpoint, one value at a time: BF16, E4M3 ("fn"), E2M1 and the scale
// byte UE8M0. Formats and roundings: docs of the OCP 8-bit and MX specifications; V4's block scale
// rule in the reference inference code (act_quant). Everything here is `static`, and
// compiler built-ins stand for std::bit_cast and its like, so that files compiled for different
// instruction sets never share a definition.

#include <cstdint>
#include <cstring>

namespace toaster {

/// Loads a T from memory of any alignment; checkpoints align nothing.
template <typename T>
static inline T LoadUnaligned(const void* address) {
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}

static inline float Bf16ToFloat(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

/// Round to nearest, ties to even. NaN stays NaN, overflow becomes infinity.
static inline uint16_t FloatToBf16(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// Bf16ToFloat(FloatToBf16(x)) in words of 32 bits and without a jump, so that loops of it become
/// vector instructions.
static inline float RoundBf16(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = bits + 0x7FFF + (bits >> 16 & 1);
  const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return __builtin_bit_cast(float, (is_nan ? bits | 0x400000 : rounded) & 0xFFFF0000);
}

/// 2^(byte - 127); byte 255 is NaN. Byte 0, 2^-127, is a denormal float.
static inline float E8m0ToFloat(uint8_t byte) {
  if (byte == 255) return __builtin_bit_cast(float, 0x7FC00000u);
  return __builtin_bit_cast(float, byte == 0 ? 0x00400000u : static_cast<uint32_t>(byte) << 23);
}

/// Exact. Codes 0x7F and 0xFF are NaN, the largest magnitude is 448.
static inline float E4m3ToFloat(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  float magnitude;
  if ((code & 0x7F) == 0x7F) {
    magnitude = __builtin_bit_cast(float, 0x7FC00000u);
  } else if (exponent == 0) {
    magnitude = static_cast<float>(mantissa) * 0x1p-9f;
  } else {
    magnitude = __builtin_bit_cast(
        float, static_cast<uint32_t>(exponent + 120) << 23 | static_cast<uint32_t>(mantissa) << 20);
  }
  return code & 0x80 ? -magnitude : magnitude;
}

/// Nearest code, ties to even, magnitudes beyond 448 saturate. NaN gives 0x7F.
static inline uint8_t FloatToE4m3(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return 0x7F;
  if (magnitude >= 0x43E00000) return sign | 0x7E;  // 448 and more
  if (magnitude < 0x3C800000) {                     // below 2^-6: multiples of 2^-9
    return sign | static_cast<uint8_t>(
                      __builtin_nearbyintf(__builtin_bit_cast(float, magnitude) * 0x1p9f));
  }
  magnitude += 0x7FFFF + (magnitude >> 20 & 1);
  return sign | static_cast<uint8_t>((magnitude >> 20) - (120 << 3));
}

/// Values of the E2M1 codes 0..7; codes 8..15 are their negatives.
static constexpr float kE2m1Values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};

static inline float E2m1ToFloat(uint8_t code) {
  const float magnitude = kE2m1Values[code & 7];
  return code & 8 ? -magnitude : magnitude;
}

/// Nearest code, ties to the even code, magnitudes beyond 6 saturate.
static inline uint8_t FloatToE2m1(float x) {
  const float a = __builtin_fabsf(x);
  const int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                   (a >= 3.5f) + (a > 5.0f);
  return static_cast<uint8_t>(code | (__builtin_signbit(x) ? 8 : 0));
}

static constexpr float kE4m3AmaxFloor = 1e-4f;
static constexpr float kE2m1AmaxFloor = 6 * 0x1p-126f;
static constexpr float kE4m3InverseMax = 1.0f / 448.0f;
static constexpr float kE2m1InverseMax = 1.0f / 6.0f;

/// UE8M0 byte of the smallest power of two >= amax * inverse_max, the product rounded to float
/// first and the logarithm read off its bits. `amax` is already raised to the format's floor.
static inline uint8_t BlockScaleByte(float amax, float inverse_max) {
  const auto bits = __builtin_bit_cast(uint32_t, amax * inverse_max);
  return static_cast<uint8_t>((bits >> 23) + ((bits & 0x7FFFFF) != 0));
}

}  // namespace toaster
