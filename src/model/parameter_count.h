#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// Numbers that a model has learned, counted from the shapes; scales and routing tables are none.
struct ParameterCount {
  int64_t total = 0;   ///< of the main model
  int64_t active = 0;  ///< read for one token: no embedding table, but the head, and only the
                       ///< experts that a token is sent to
  int64_t drafts = 0;  ///< of the draft blocks, in none of the above
};

/// Logical numbers of one tensor; 0 for a routing table.
int64_t ParametersOf(const TensorSpec& spec);

ParameterCount CountParameters(const Config& config);

}  // namespace toaster
