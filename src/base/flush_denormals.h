#pragma once

namespace toaster {

/// While alive, the calling thread treats denormal float operands as zero and flushes denormal
/// results, as `vdpbf16ps` always does. Every thread that computes holds one, so that the kernels
/// of all instruction sets agree to the last bit. Restores the earlier mode at the end.
class ScopedFlushDenormals {
 public:
  ScopedFlushDenormals();
  ~ScopedFlushDenormals();
  ScopedFlushDenormals(const ScopedFlushDenormals&) = delete;
  ScopedFlushDenormals& operator=(const ScopedFlushDenormals&) = delete;

 private:
  unsigned long long saved_;
};

}  // namespace toaster
