#include "backend/registry.h"

#include <fmt/format.h>

#include <utility>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_backward.h"
#include "backend/profiling_backend.h"
#include "backend/reference/reference_backend.h"
#include "backend/reference/reference_backward.h"
#include "base/check.h"
#include "base/error.h"

namespace toaster {

std::vector<std::string> BackendNames() { return {"cpu", "reference"}; }

std::vector<std::string> RunnableKernels() {
  std::vector<std::string> names;
  for (const char* name : kernels::kTableNames) {
    if (kernels::CanRun(name)) names.push_back(name);
  }
  return names;
}

namespace {

struct CpuChoice {
  const kernels::KernelTable& kernels;
  int threads;
};

CpuChoice ChooseCpu(const BackendOptions& options) {
  CHECK(options.numerics != Numerics::kQuantisedFloat32, "only the reference backend has these");
  const kernels::KernelTable* table = kernels::Choose(options.kernels.c_str());
  if (table == nullptr) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format(
            "kernels \"{}\" are unknown or need instructions that this processor lacks; choose "
            "portable, avx2, avx512 (the fastest of avx512_bf16, avx512_fma and avx512_amx), or "
            "leave the "
            "choice to the program",
            options.kernels));
  }
  return {*table, options.threads > 0 ? options.threads : UsableProcessors()};
}

Error UnknownBackend(const BackendOptions& options) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("backend \"{}\" is unknown; choose reference or cpu", options.backend)};
}

std::unique_ptr<Backend> CreatePlain(const BackendOptions& options) {
  if (options.backend == "reference") return std::make_unique<ReferenceBackend>(options.numerics);
  if (options.backend != "cpu") throw UnknownBackend(options);
  const CpuChoice cpu = ChooseCpu(options);
  return std::make_unique<CpuBackend>(options.numerics, cpu.threads, cpu.kernels);
}

}  // namespace

std::unique_ptr<Backend> CreateBackend(const BackendOptions& options) {
  std::unique_ptr<Backend> backend = CreatePlain(options);
  if (options.profile == nullptr) return backend;
  return std::make_unique<ProfilingBackend>(std::move(backend), *options.profile);
}

std::unique_ptr<BackwardBackend> CreateBackward(const BackendOptions& options) {
  if (options.backend == "reference") return std::make_unique<ReferenceBackward>(options.numerics);
  if (options.backend != "cpu") throw UnknownBackend(options);
  const CpuChoice cpu = ChooseCpu(options);
  return std::make_unique<CpuBackward>(options.numerics, cpu.threads, cpu.kernels);
}

}  // namespace toaster
