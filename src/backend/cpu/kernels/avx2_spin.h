#pragma once

// Multiply-adds in registers, for measuring the limits of the machine. Included by avx2.cc only.

#include "backend/cpu/kernels/avx2_vector.h"

namespace toaster::kernels::avx2 {

namespace {

constexpr int kChains = 12;  // enough of them to hide the latency of one

int64_t SpinFloat(int64_t rounds, float* sink) {
  __m256 sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(*sink + static_cast<float>(i));
  const __m256 factor = sums[0];
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(factor, factor, sums[i]);
  }
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) *sink += Fold(sums[i], sums[i]);
  return rounds * kChains * 16;
}

/// Products of bytes, added in pairs and then to 16-bit sums: the inner loop of IndexScores.
int64_t SpinInt8(int64_t rounds, float* sink) {
  __m256i sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = AsBits(_mm256_set1_ps(*sink + static_cast<float>(i)));
  for (int64_t round = 0; round < rounds; ++round) {
    const __m256i factor = _mm256_set1_epi32(static_cast<int>(round));
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(sums[i], factor));
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) {
    const __m256 floats = _mm256_cvtepi32_ps(sums[i]);
    *sink += Fold(floats, floats);
  }
  return rounds * kChains * 64;
}

}  // namespace

}  // namespace toaster::kernels::avx2
