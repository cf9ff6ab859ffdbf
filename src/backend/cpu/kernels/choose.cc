#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <chrono>
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

// The tile registers are large, so Linux wants to be asked for them, once in a process.
bool HasAmx() {
  constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTiles) == 0 || (edx & kInt8) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

// The most operations per second of a few short attempts, a fraction of a millisecond each.
double QuickRate(int64_t (*spin)(int64_t rounds, float* sink)) {
  constexpr int kAttempts = 5;
  constexpr int64_t kRounds = 1 << 13;
  double best = 0;
  float sink = 0;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto start = std::chrono::steady_clock::now();
    const int64_t operations = spin(kRounds, &sink);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(operations) / seconds.count());
  }
  return best;
}

// vdpbf16ps does twice the work of a fused multiply-add on some processors and half of it on
// others, and none says which. Both give the same bits, so a wrong answer costs time only; the
// margin is what expanding to floats costs.
const KernelTable& FasterAvx512() {
  constexpr double kMargin = 1.15;
  static const bool fused =
      QuickRate(Avx512Bf16().spin_float) > kMargin * QuickRate(Avx512Bf16().spin_bf16);
  if (!fused) return Avx512Bf16();
  return HasAmx() ? Avx512Amx() : Avx512Fma();
}
#endif

}  // namespace

const KernelTable* Choose(const char* name) {
  const std::string_view wanted = name;
#if defined(__x86_64__)
  if (HasAvx512()) {
    if (wanted.empty() || wanted == "avx512") return &FasterAvx512();
    if (wanted == "avx512_bf16") return &Avx512Bf16();
    if (wanted == "avx512_fma") return &Avx512Fma();
    if (wanted == "avx512_amx" && HasAmx()) return &Avx512Amx();
  }
  if ((wanted.empty() || wanted == "avx2") && HasAvx2()) return &Avx2();
#endif
  if (wanted.empty() || wanted == "portable") return &Portable();
  return nullptr;
}

bool CanRun(const char* name) { return *name != '\0' && Choose(name) != nullptr; }

}  // namespace toaster::kernels
