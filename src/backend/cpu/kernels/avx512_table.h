#pragma once

// What the AVX-512 tables have in common: all but the products of many BF16 numbers. Included by
// their files only.

#include "backend/cpu/kernels/avx2_accumulate.h"
#include "backend/cpu/kernels/avx2_backward.h"
#include "backend/cpu/kernels/avx512_candidates.h"
#include "backend/cpu/kernels/avx512_elements.h"
#include "backend/cpu/kernels/avx512_index.h"
#include "backend/cpu/kernels/avx512_matmul.h"
#include "backend/cpu/kernels/avx512_spin.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr KernelTable CommonTable(const char* name) {
  return {
      .name = name,
      .matmul_bf16 = nullptr,
      .matmul_e4m3 = nullptr,
      .matmul_e2m1 = nullptr,
      .matmul_f32 = MatmulF32,
      .round_bf16 = RoundRowToBf16,
      .quantize_e4m3 = QuantizeE4m3,
      .hadamard = Hadamard,
      .encode_key = EncodeKey,
      .expand_entry = ExpandEntry,
      .scale_scores = ScaleScores,
      .softmax_numerators = SoftmaxNumerators,
      .accumulate_bf16 = AccumulateBf16,
      .accumulate_f32 = avx2::Accumulate<avx2::FloatValues>,
      .swiglu = Swiglu,
      .swiglu_backward = avx2::SwigluBackward,
      .index_scores = IndexScores,
      .reads_folded_queries = true,
      .index_candidates = FindCandidates,
      .candidates_from = 8,
      .spin_bf16 = nullptr,
      .spin_int8 = SpinInt8,
      .spin_float = SpinFloat,
  };
}

}  // namespace

}  // namespace toaster::kernels::avx512
