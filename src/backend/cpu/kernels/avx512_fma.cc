// The same instructions as avx512_bf16.cc, with products of many tokens by fused multiply-adds.

#include <immintrin.h>

#include "backend/cpu/kernels/avx512_fused_table.h"

namespace toaster::kernels {

static constexpr KernelTable kTable = avx512::FusedTable("avx512_fma");

const KernelTable& Avx512Fma() { return kTable; }

}  // namespace toaster::kernels
