#pragma once

// Simulated quantisation of activations: quantise in blocks with a power-of-two scale, then take
// the value back (section 11.3 and 11.4).

#include <cstdint>

namespace toaster {

/// output[i] = E4M3 value of x[i] times its block's scale; n is a multiple of `block`. In place if
/// output is x.
void QuantizeE4m3(const float* x, int64_t n, int64_t block, float* output);

}  // namespace toaster
