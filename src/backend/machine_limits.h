#pragma once

namespace toaster {

/// What this machine can do at most with the instructions a backend uses: the rates that speeds are
/// reported as shares of. All threads of the backend together; 0 where not known.
struct MachineLimits {
  double read_bytes_per_s = 0;  ///< reading memory that no cache holds, in huge pages
  double bf16_flops_per_s = 0;  ///< additions and multiplications
  double int8_ops_per_s = 0;
  double float_flops_per_s = 0;
};

}  // namespace toaster
