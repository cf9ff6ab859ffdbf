#pragma once

// The one order of summation.
//
// Every sum over the inner dimension of an operation is made in 16 float lanes that are folded by a
// fixed tree, so that a result does not depend on the tile, the chunk, the batch, the number of
// threads or the instruction set. The functions here are the definition; kernels reproduce their
// bits. Callers flush denormals (base/flush_denormals.h).
//
// * FoldLanes: lane i + lane i+8, then +4, +2, +1.
// * DotFloat:  element k belongs to lane k mod 16, one fused multiply-add each, in rising order of
// k.
// * DotBf16:   elements 2j and 2j+1 belong to lane j mod 16; in each lane and step the odd element
// is added before the even
//              one, each by a fused multiply-add. This is what `vdpbf16ps` does.
// A length that is not a multiple of a step (16 floats, 32 BF16 numbers) counts as filled up with
// +0; this decides the sign of a zero sum only.

#include <cstdint>

#include "tensor/number_formats.h"

namespace toaster {

static constexpr int kLanes = 16;

/// Adds up 16 lanes; overwrites them.
static inline float FoldLanes(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

static inline float DotFloat(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] = __builtin_fmaf(a[k + i], b[k + i], lanes[i]);
  }
  for (int i = 0; k < n && i < kLanes; ++i) {
    const bool inside = k + i < n;
    lanes[i] = __builtin_fmaf(inside ? a[k + i] : 0.0f, inside ? b[k + i] : 0.0f, lanes[i]);
  }
  return FoldLanes(lanes);
}

/// The plain sum in the order of DotFloat.
static inline float SumFloat(const float* a, int64_t n) {
  float lanes[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += a[k + i];
  }
  for (int i = 0; k < n && i < kLanes; ++i) lanes[i] += k + i < n ? a[k + i] : 0.0f;
  return FoldLanes(lanes);
}

/// The order of DotBf16 on BF16 values that are held as floats.
static inline float DotPairs(const float* a, const float* b, int64_t n) {
  constexpr int kStep = 2 * kLanes;
  float lanes[kLanes] = {};
  for (int64_t k = 0; k < n; k += kStep) {
    float last_a[kStep] = {}, last_b[kStep] = {};
    const float *step_a = a + k, *step_b = b + k;
    if (n - k < kStep) {
      for (int64_t i = 0; i < n - k; ++i) last_a[i] = step_a[i], last_b[i] = step_b[i];
      step_a = last_a, step_b = last_b;
    }
    for (int odd = 1; odd >= 0; --odd) {
      for (int i = 0; i < kLanes; ++i) {
        lanes[i] = __builtin_fmaf(step_a[2 * i + odd], step_b[2 * i + odd], lanes[i]);
      }
    }
  }
  return FoldLanes(lanes);
}

/// `a` and `b` are BF16 bit patterns, at any alignment.
static inline float DotBf16(const void* a, const void* b, int64_t n) {
  const auto* pa = static_cast<const uint8_t*>(a);
  const auto* pb = static_cast<const uint8_t*>(b);
  const auto value = [n](const uint8_t* p, int64_t k) {
    return k < n ? Bf16ToFloat(LoadUnaligned<uint16_t>(p + 2 * k)) : 0.0f;
  };
  float lanes[kLanes] = {};
  for (int64_t k = 0; k < (n + 31) / 32 * 32; k += 2) {
    float& lane = lanes[k / 2 % kLanes];
    lane = __builtin_fmaf(value(pa, k + 1), value(pb, k + 1), lane);
    lane = __builtin_fmaf(value(pa, k), value(pb, k), lane);
  }
  return FoldLanes(lanes);
}

}  // namespace toaster
