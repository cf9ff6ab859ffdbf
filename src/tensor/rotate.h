#pragma once

// Rotary position embedding and the Hadamard rotation (section 6 and 9.3).

#include <cmath>
#include <cstdint>
#include <span>

#include "tensor/elementary.h"

namespace toaster {

/// Cosine and sine of position * frequency for every pair; the product is rounded to float first,
/// as the model was trained.
static inline void RotationAngles(int64_t position, std::span<const float> frequencies,
                                  float* cosine, float* sine) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    SinCos(static_cast<float>(position) * frequencies[i], sine + i, cosine + i);
  }
}

/// Turns the adjacent pairs of x [n] by the angles whose cosine and sine [n/2] are given, or back.
/// Each output is one rounded product and one fused multiply-add.
static inline void RotatePairs(float* x, int64_t n, const float* cosine, const float* sine,
                               bool inverse) {
  for (int64_t i = 0; i < n / 2; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    const float c = cosine[i], s = inverse ? -sine[i] : sine[i];
    x[2 * i] = std::fma(a, c, -(b * s));
    x[2 * i + 1] = std::fma(a, s, b * c);
  }
}

/// Orthonormal Walsh-Hadamard transform of x [n] in natural order, n a power of two: butterflies
/// with strides 1, 2, 4, ..., then the factor n^(-1/2).
static inline void HadamardTransform(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const auto factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

}  // namespace toaster
