#pragma once

// Elementary functions of our own: fixed sequences of IEEE operations, so that every processor and
// every library gives the same bits. Vector kernels repeat the same steps. All are `static`: see
// number_formats.h.

#include <cstdint>

namespace toaster {

// Steps of Exp, shared with the vector kernels: e^x = 2^n * e^r with r = x - n ln 2, |r| <=
// ln(2)/2, and e^r = 1 + r + r^2 P(r), P fitted on Chebyshev nodes. Largest error 0.7 units in the
// last place.
static constexpr float kExpOverflow = 88.72283f;    // above: +infinity
static constexpr float kExpUnderflow = -87.33654f;  // below: 0
static constexpr float kLog2E = 0x1.715476p+0f;
static constexpr float kLn2High = 0x1.62e4p-1f;
static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
static constexpr float kExpPolynomial[6] = {0x1p-1f,        0x1.555556p-3f,  0x1.5554e8p-5f,
                                            0x1.1110c6p-7f, 0x1.6d4366p-10f, 0x1.a151bcp-13f};

/// e^x. Under flushed denormals results below 2^-126 are 0. NaN stays NaN.
static inline float Exp(float value) {
  // Without branches, so that compilers make vectors of loops: e^0 where the steps do not hold.
  const bool inside = value >= kExpUnderflow && value <= kExpOverflow;
  const float x = inside ? value : 0.0f;
  const float n = __builtin_nearbyintf(x * kLog2E);
  float r = __builtin_fmaf(-n, kLn2High, x);
  r = __builtin_fmaf(-n, kLn2Low, r);
  // Written out, because loops inside are no vectors of the loop around.
  float p = __builtin_fmaf(kExpPolynomial[5], r, kExpPolynomial[4]);
  p = __builtin_fmaf(p, r, kExpPolynomial[3]);
  p = __builtin_fmaf(p, r, kExpPolynomial[2]);
  p = __builtin_fmaf(p, r, kExpPolynomial[1]);
  p = __builtin_fmaf(p, r, kExpPolynomial[0]);
  const float y = __builtin_fmaf(p, r * r, r) + 1.0f;
  // 2^n in two factors, since 2^128 is no float.
  const int whole = static_cast<int>(n), half = whole >> 1;
  const float scale_a = __builtin_bit_cast(float, static_cast<uint32_t>(half + 127) << 23);
  const float scale_b = __builtin_bit_cast(float, static_cast<uint32_t>(whole - half + 127) << 23);
  const float infinity = __builtin_bit_cast(float, 0x7F800000u);
  const float outside = value > kExpOverflow ? infinity : value < kExpUnderflow ? 0.0f : value;
  return inside ? y * scale_a * scale_b : outside;
}

/// 1 / (1 + e^-x).
static inline float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

/// ln(1 + e^x), x itself above 20, as the router defines it; in double inside, rounded once.
static inline float Softplus(float x) {
  if (x > 20.0f) return x;
  if (x < -80.0f) return Exp(x);  // ln(1 + u) = u for tiny u
  // u = e^-|x| in double: the float steps with a longer series.
  const double magnitude = -__builtin_fabs(static_cast<double>(x));
  const double n = __builtin_nearbyint(magnitude * 0x1.71547652b82fep+0);
  double r = __builtin_fma(-n, 0x1.62e42fefa39efp-1, magnitude);
  r = __builtin_fma(-n, 0x1.abc9e3b39803fp-56, r);
  double e = 1.0;
  for (int k = 12; k >= 1; --k) e = __builtin_fma(e * r, 1.0 / k, 1.0);
  const double u =
      e * __builtin_bit_cast(double, static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
  // ln(1 + u) = 2 atanh(u / (2 + u)), the argument at most 1/3.
  const double s = u / (2.0 + u), square = s * s;
  double series = 0.0;
  for (int k = 23; k >= 1; k -= 2) series = __builtin_fma(series, square, 1.0 / k);
  const double log1p = 2.0 * s * series;
  return static_cast<float>(x > 0 ? static_cast<double>(x) + log1p : log1p);
}

/// Sine and cosine of a float angle of any size up to about 10^8, correct to float rounding.
static inline void SinCos(float angle, float* sine, float* cosine) {
  const double x = angle;
  const double n = __builtin_nearbyint(x * 0x1.45f306dc9c883p-1);  // quarter turns
  double r = __builtin_fma(-n, 0x1.921fb54442d18p+0, x);
  r = __builtin_fma(-n, 0x1.1a62633145c07p-54, r);
  const double square = r * r;
  double s = 0.0, c = 0.0;
  // Taylor series to r^17 and r^18; |r| <= pi/4 leaves an error below 2^-54.
  for (int k = 17; k >= 3; k -= 2) s = (s + 1.0) * (-square / (k * (k - 1)));
  for (int k = 18; k >= 2; k -= 2) c = (c + 1.0) * (-square / (k * (k - 1)));
  const double sin_r = __builtin_fma(r, s, r), cos_r = 1.0 + c;
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      *sine = static_cast<float>(sin_r), *cosine = static_cast<float>(cos_r);
      break;
    case 1:
      *sine = static_cast<float>(cos_r), *cosine = static_cast<float>(-sin_r);
      break;
    case 2:
      *sine = static_cast<float>(-sin_r), *cosine = static_cast<float>(-cos_r);
      break;
    default:
      *sine = static_cast<float>(-cos_r), *cosine = static_cast<float>(sin_r);
      break;
  }
}

}  // namespace toaster
