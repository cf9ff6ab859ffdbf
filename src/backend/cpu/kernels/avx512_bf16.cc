// AVX-512 with BF16, VNNI and VBMI. vdpbf16ps multiplies pairs of BF16 numbers, adds the odd
// product before the even one with a rounding each, and takes denormals for zero whatever the mode:
// the order of summation is defined after it.

#include <immintrin.h>

#include "backend/cpu/kernels/avx512_table.h"

namespace toaster::kernels {

static constexpr KernelTable kTable = [] {
  KernelTable table = avx512::CommonTable("avx512_bf16");
  table.matmul_bf16 = avx512::MatmulBf16;
  table.matmul_e4m3 = avx512::MatmulE4m3;
  table.matmul_e2m1 = avx512::MatmulE2m1;
  table.spin_bf16 = avx512::SpinBf16;
  return table;
}();

const KernelTable& Avx512Bf16() { return kTable; }

}  // namespace toaster::kernels
