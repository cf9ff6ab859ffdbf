#pragma once

#include <cstdint>

#include "train/trained_weights.h"

namespace toaster {

/// Random masters and hash tables for training from nothing; the same for a seed, whatever else
/// happens. Matrices are normal with deviation `deviation` (config.json's initializer_range, 0.02
/// in the released models), those that write to the residual streams with that over the square root
/// of twice the layers. Norms are 1. Hyper-connections begin close to a plain residual: small
/// gates, a mixing matrix near the identity. Sinks, position biases and selection biases are 0.
/// Call Store() after.
void InitialiseWeights(TrainedWeights& weights, uint64_t seed, double deviation);

}  // namespace toaster
