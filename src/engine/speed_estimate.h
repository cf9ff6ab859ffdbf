#pragma once

// How fast a model will run within a memory plan, from what the machine was measured to do.

#include <cstdint>

#include "backend/machine_limits.h"
#include "engine/memory_plan.h"
#include "model/config.h"

namespace toaster {

/// What speeds follow from.
struct SpeedLimits {
  MachineLimits machine;
  double disk_bytes_per_s = 0;  ///< direct reads of experts
};

/// A position in a conversation.
struct SpeedPoint {
  int64_t depth = 0;   ///< tokens in the cache while decoding
  int64_t prompt = 0;  ///< tokens of a prompt read from an empty cache
};

struct SpeedEstimate {
  /// Of the experts a token is sent to, those in memory: the share of experts that fit, as if all
  /// were used equally often. Text uses some more than others, so this is a lower bound.
  double hit_share = 1;
  double memory_bytes_per_token = 0;  ///< decode: weights and cache read from memory
  double disk_bytes_per_token = 0;    ///< decode: experts read from disk
  double decode_tokens_per_s = 0;
  double prefill_tokens_per_s = 0;
  double prefill_disk_bytes = 0;   ///< of the whole prompt
  double first_token_seconds = 0;  ///< prefill of the prompt
};

/// Shares of the limits that the kernels reach, see docs/performance.md.
struct ReachedShares {
  double decode_read = 0.85;      ///< of the read bandwidth
  double prefill_compute = 0.58;  ///< of the BF16 peak
  double prefill_overlap = 0.70;  ///< of computing or reading, whichever is shorter
};

/// `official` numerics, one sequence. Rates are 0 where limits are.
SpeedEstimate EstimateSpeed(const Config& config, const WeightSizes& sizes, const MemoryPlan& plan,
                            const SpeedLimits& limits, const SpeedPoint& point,
                            const ReachedShares& reached = {});

}  // namespace toaster
