#pragma once

// Measuring what this machine can do at most with the instructions of a kernel table.

#include "backend/cpu/kernels/kernels.h"
#include "backend/machine_limits.h"
#include "base/thread_pool.h"

namespace toaster::kernels {

/// Measures with all threads of `pool`, in about a second; each rate is the best of several
/// attempts. Uses 1 GiB of memory meanwhile.
MachineLimits MeasureLimits(const KernelTable& table, ThreadPool& pool);

/// Integer multiplications and additions a second of all threads of `pool` just now, measured for
/// about a millisecond: for comparing with what ran a moment ago on a machine that others use.
double CurrentInt8Rate(const KernelTable& table, ThreadPool& pool);

/// The same for BF16, measured for as long as an attempt of MeasureLimits.
double CurrentBf16Rate(const KernelTable& table, ThreadPool& pool);

}  // namespace toaster::kernels
