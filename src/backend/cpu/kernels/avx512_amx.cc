// The same as avx512_fma.cc with AMX for the integer products of the indexer. Its BF16 products add
// in another order than all other tables and are not used.

#include <immintrin.h>

#include "backend/cpu/kernels/amx_index.h"
#include "backend/cpu/kernels/avx2_accumulate.h"
#include "backend/cpu/kernels/avx2_backward.h"
#include "backend/cpu/kernels/avx512_elements.h"
#include "backend/cpu/kernels/avx512_float_tiles.h"
#include "backend/cpu/kernels/avx512_spin.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

static constexpr KernelTable kTable = {
    .name = "avx512_amx",
    .matmul_bf16 = avx512::FusedMatmulBf16,
    .matmul_e4m3 = avx512::FusedMatmulE4m3,
    .matmul_e2m1 = avx512::FusedMatmulE2m1,
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
    .index_scores = amx::IndexScores,
    .reads_folded_queries = true,
    .spin_bf16 = avx512::SpinFloat,
    .spin_int8 = amx::SpinInt8,
    .spin_float = avx512::SpinFloat,
};

const KernelTable& Avx512Amx() { return kTable; }

}  // namespace toaster::kernels
