// AVX2 with FMA and F16C. The 16 lanes of a sum are two vectors.

#include <immintrin.h>

#include "backend/cpu/kernels/avx2_accumulate.h"
#include "backend/cpu/kernels/avx2_backward.h"
#include "backend/cpu/kernels/avx2_candidates.h"
#include "backend/cpu/kernels/avx2_elements.h"
#include "backend/cpu/kernels/avx2_index.h"
#include "backend/cpu/kernels/avx2_matmul.h"
#include "backend/cpu/kernels/avx2_spin.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

static constexpr KernelTable kTable = {
    .name = "avx2",
    .matmul_bf16 = avx2::MatmulBf16,
    .matmul_e4m3 = avx2::MatmulE4m3,
    .matmul_e2m1 = avx2::MatmulE2m1,
    .matmul_f32 = avx2::MatmulF32,
    .round_bf16 = avx2::RoundRowToBf16,
    .quantize_e4m3 = avx2::QuantizeE4m3,
    .hadamard = avx2::Hadamard,
    .encode_key = avx2::EncodeKey,
    .expand_entry = avx2::ExpandEntry,
    .scale_scores = avx2::ScaleScores,
    .softmax_numerators = avx2::SoftmaxNumerators,
    .accumulate_bf16 = avx2::Accumulate<avx2::Bf16Values>,
    .accumulate_f32 = avx2::Accumulate<avx2::FloatValues>,
    .swiglu = avx2::Swiglu,
    .swiglu_backward = avx2::SwigluBackward,
    .index_scores = avx2::IndexScores,
    .index_candidates = avx2::FindCandidates,
    .candidates_from = 64,
    .spin_bf16 = avx2::SpinFloat,
    .spin_int8 = avx2::SpinInt8,
    .spin_float = avx2::SpinFloat,
};

const KernelTable& Avx2() { return kTable; }

}  // namespace toaster::kernels
