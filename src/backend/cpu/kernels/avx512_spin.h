#pragma once

// Multiply-adds in registers, for measuring the limits of the machine. Included by avx512_bf16.cc
// only.

#include "backend/cpu/kernels/avx512_vector.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr int kChains = 16;  // enough of them to hide the latency of one

[[maybe_unused]] int64_t SpinBf16(int64_t rounds, float* sink) {
  __m512 sums[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(*sink + static_cast<float>(i));
  const __m512i factor = AsBits(_mm512_set1_ps(*sink));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = AddProducts(sums[i], factor, factor);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) *sink += Fold(sums[i]);
  return rounds * kChains * 64;
}

int64_t SpinInt8(int64_t rounds, float* sink) {
  // The type that the instruction has inside GCC; with __m512i each sum is copied in each round.
  using Int32s = int32_t __attribute__((vector_size(64)));
  Int32s sums[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) {
    sums[i] = (Int32s)_mm512_set1_epi32(static_cast<int>(*sink) + i);
  }
  const __m512i factor = AsBits(_mm512_set1_ps(*sink));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      sums[i] = (Int32s)_mm512_dpbusd_epi32((__m512i)sums[i], factor, factor);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) *sink += Fold(_mm512_cvtepi32_ps((__m512i)sums[i]));
  return rounds * kChains * 128;
}

int64_t SpinFloat(int64_t rounds, float* sink) {
  __m512 sums[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(*sink + static_cast<float>(i));
  const __m512 factor = sums[0];
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(factor, factor, sums[i]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) *sink += Fold(sums[i]);
  return rounds * kChains * 32;
}

}  // namespace

}  // namespace toaster::kernels::avx512
