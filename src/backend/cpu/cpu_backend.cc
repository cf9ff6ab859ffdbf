#include "backend/cpu/cpu_backend.h"

#include <fmt/format.h>

#include "backend/cpu/kernels/limits.h"

namespace toaster {

CpuBackend::CpuBackend(Numerics numerics, int threads, const kernels::KernelTable& kernels)
    : Backend(numerics),
      kernels_(kernels),
      pool_(threads),
      scratch_(static_cast<size_t>(threads)),
      candidates_(static_cast<size_t>(threads)) {}

std::string CpuBackend::name() const {
  return fmt::format("cpu/{} with {} threads", kernels_.name, pool_.threads());
}

MachineLimits CpuBackend::MeasureLimits() { return kernels::MeasureLimits(kernels_, pool_); }

double CpuBackend::CurrentBf16Rate() { return kernels::CurrentBf16Rate(kernels_, pool_); }

}  // namespace toaster
