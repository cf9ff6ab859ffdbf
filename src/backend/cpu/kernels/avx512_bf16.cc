// AVX-512 with BF16, VNNI and VBMI. vdpbf16ps multiplies pairs of BF16 numbers, adds the odd
// product before the even one with a rounding each, and takes denormals for zero whatever the mode:
// the order of summation is defined after it.

#include <immintrin.h>

#include "backend/cpu/kernels/avx2_accumulate.h"
#include "backend/cpu/kernels/avx2_backward.h"
#include "backend/cpu/kernels/avx512_elements.h"
#include "backend/cpu/kernels/avx512_index.h"
#include "backend/cpu/kernels/avx512_matmul.h"
#include "backend/cpu/kernels/avx512_spin.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

static constexpr KernelTable kTable = {
    .name = "avx512_bf16",
    .matmul_bf16 = avx512::MatmulBf16,
    .matmul_e4m3 = avx512::MatmulE4m3,
    .matmul_e2m1 = avx512::MatmulE2m1,
    .matmul_f32 = avx512::MatmulF32,
    .round_bf16 = avx512::RoundRowToBf16,
    .quantize_e4m3 = avx512::QuantizeE4m3,
    .hadamard = avx512::Hadamard,
    .encode_key = avx512::EncodeKey,
    .expand_entry = avx512::ExpandEntry,
    .scale_scores = avx512::ScaleScores,
    .softmax_numerators = avx512::SoftmaxNumerators,
    .accumulate_bf16 = avx512::AccumulateBf16,
    .accumulate_f32 = avx2::Accumulate<avx2::FloatValues>,
    .swiglu = avx512::Swiglu,
    .swiglu_backward = avx2::SwigluBackward,
    .index_scores = avx512::IndexScores,
    .reads_folded_queries = true,
    .spin_bf16 = avx512::SpinBf16,
    .spin_int8 = avx512::SpinInt8,
    .spin_float = avx512::SpinFloat,
};

const KernelTable& Avx512Bf16() { return kTable; }

}  // namespace toaster::kernels
