#pragma once

// Kernels of training alone that work element by element, with eight-lane vectors. Included by
// avx2.cc and the AVX-512 files.

#include "backend/cpu/kernels/avx2_vector.h"

namespace toaster::kernels::avx2 {

namespace {

inline float SwigluBackward(const float* gate, const float* up, int64_t n, float limit,
                            float weight, const float* grad_out, float* grad_gate, float* grad_up) {
  const __m256 high = _mm256_set1_ps(limit), one = _mm256_set1_ps(1.0f);
  const __m256 sign_bit = _mm256_set1_ps(-0.0f), weights = _mm256_set1_ps(weight);
  __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i inside = FirstLanes(n - i);
    __m256 g = _mm256_maskload_ps(gate + i, inside), u = _mm256_maskload_ps(up + i, inside);
    const __m256 grad = _mm256_maskload_ps(grad_out + i, inside);
    __m256 gate_clamped = _mm256_setzero_ps(), up_clamped = _mm256_setzero_ps();
    if (limit > 0) {
      gate_clamped = _mm256_cmp_ps(g, high, _CMP_GT_OQ);
      up_clamped = _mm256_cmp_ps(_mm256_andnot_ps(sign_bit, u), high, _CMP_GT_OQ);
      g = _mm256_blendv_ps(g, high, gate_clamped);
      u = _mm256_blendv_ps(u, _mm256_or_ps(high, _mm256_and_ps(sign_bit, u)), up_clamped);
    }
    const __m256 s = _mm256_div_ps(one, _mm256_add_ps(one, VectorExp(_mm256_xor_ps(g, sign_bit))));
    const __m256 silu = _mm256_mul_ps(g, s);
    __m256& lane = lanes[i / 8 % 2];
    lane = _mm256_blendv_ps(lane, _mm256_fmadd_ps(grad, _mm256_mul_ps(silu, u), lane),
                            AsFloats(inside));
    const __m256 scaled = _mm256_mul_ps(weights, grad);
    const __m256 slope = _mm256_add_ps(s, _mm256_mul_ps(silu, _mm256_sub_ps(one, s)));
    const __m256 to_gate = _mm256_mul_ps(_mm256_mul_ps(scaled, u), slope);
    _mm256_maskstore_ps(grad_gate + i, inside, _mm256_andnot_ps(gate_clamped, to_gate));
    _mm256_maskstore_ps(grad_up + i, inside,
                        _mm256_andnot_ps(up_clamped, _mm256_mul_ps(scaled, silu)));
  }
  return Fold(lanes[0], lanes[1]);
}

}  // namespace

}  // namespace toaster::kernels::avx2
