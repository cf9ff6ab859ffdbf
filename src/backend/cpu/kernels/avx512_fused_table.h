#pragma once

// The AVX-512 table with products of many tokens by fused multiply-adds. Included by avx512_fma.cc
// and avx512_amx.cc only.

#include "backend/cpu/kernels/avx512_float_accumulate.h"
#include "backend/cpu/kernels/avx512_float_tiles.h"
#include "backend/cpu/kernels/avx512_table.h"

namespace toaster::kernels::avx512 {

namespace {

constexpr KernelTable FusedTable(const char* name) {
  KernelTable table = CommonTable(name);
  table.matmul_bf16 = FusedMatmulBf16;
  table.matmul_e4m3 = FusedMatmulE4m3;
  table.matmul_e2m1 = FusedMatmulE2m1;
  table.accumulate_bf16 = FusedAccumulateBf16;
  table.spin_bf16 = SpinFloat;
  return table;
}

}  // namespace

}  // namespace toaster::kernels::avx512
