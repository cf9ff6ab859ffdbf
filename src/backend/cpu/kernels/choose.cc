#include <string_view>

#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

namespace {

#if defined(__x86_64__)
// __builtin_cpu_supports also asks whether the operating system saves the registers. Every
// processor with AVX2 has F16C.
bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

}  // namespace

const KernelTable* Choose(const char* name) {
  const std::string_view wanted = name;
#if defined(__x86_64__)
  if ((wanted.empty() || wanted == "avx512") && HasAvx512()) return &Avx512Bf16();
  if ((wanted.empty() || wanted == "avx2") && HasAvx2()) return &Avx2();
#endif
  if (wanted.empty() || wanted == "portable") return &Portable();
  return nullptr;
}

bool CanRun(const char* name) { return *name != '\0' && Choose(name) != nullptr; }

}  // namespace toaster::kernels
