#include "base/flush_denormals.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace toaster {

#if defined(__x86_64__)

namespace {
constexpr unsigned kFlushResults = 0x8000;  // MXCSR.FTZ
constexpr unsigned kZeroOperands = 0x0040;  // MXCSR.DAZ
}  // namespace

ScopedFlushDenormals::ScopedFlushDenormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(static_cast<unsigned>(saved_) | kFlushResults | kZeroOperands);
}

ScopedFlushDenormals::~ScopedFlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }

#elif defined(__aarch64__)

namespace {
constexpr unsigned long long kFlushToZero = 1ull << 24;  // FPCR.FZ: operands and results
}  // namespace

ScopedFlushDenormals::ScopedFlushDenormals() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" : : "r"(saved_ | kFlushToZero));
}

ScopedFlushDenormals::~ScopedFlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

#else
#error "Say here how this processor flushes denormal floats."
#endif

}  // namespace toaster
