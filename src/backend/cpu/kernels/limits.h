#pragma once

// What this machine can do at most, measured with the instructions of a kernel table: the rates
// that speeds are reported as shares of.

#include "backend/cpu/kernels/kernels.h"
#include "base/thread_pool.h"

namespace toaster::kernels {

struct MachineLimits {
  double read_bytes_per_s = 0;  ///< reading memory that no cache holds, in huge pages
  double bf16_flops_per_s = 0;  ///< additions and multiplications
  double int8_ops_per_s = 0;
  double float_flops_per_s = 0;
};

/// Measures with all threads of `pool`, in about a second; each rate is the best of several
/// attempts. Uses 1 GiB of memory meanwhile.
MachineLimits MeasureLimits(const KernelTable& table, ThreadPool& pool);

}  // namespace toaster::kernels
