#pragma once

// Backward of the steps in row_operations.h: one token, one head or one compressed block at a time.
// Gradients of inputs are added to unless a comment says otherwise.

#include <cstdint>
#include <span>

#include "backend/backward.h"
#include "backend/row_operations.h"

namespace toaster {

/// RMSNorm (section 2); `weight` null: without. Sets grad_x, which may be grad_output. grad_weight
/// may be null.
void NormaliseRowBackward(const float* x, const Vector* weight, int64_t n, float eps,
                          const float* grad_output, float* grad_weight, float* grad_x);

/// Gradients of one slot of a pooling window; adds.
struct PoolSlotGradient {
  float* values;
  float* scores;
};
/// From the gradient of a complete block's cache row (expanded) to those of its slots.
void MakeCompressedRowBackward(std::span<const PoolSlot> slots,
                               const CompressParameters& parameters, int64_t position,
                               bool official, const float* grad_row,
                               std::span<const PoolSlotGradient> gradients, float* grad_norm);

/// grad_affinity [experts] of the routing weights' gradient [experts per token].
void RouteWeightsBackward(const float* affinity, const int32_t* experts, int64_t count, float scale,
                          const float* grad_weights, float* grad_affinity);
/// Gradient of affinity = sqrt(softplus(logit)) with respect to the logit, from the affinity.
float AffinitySlope(float affinity);

/// One row of section 10.2 between the products: sets the gradients of gate and up [n] and returns
/// that of the routing weight.
float SwigluBackward(const float* gate, const float* up, int64_t n, float limit, float weight,
                     const float* grad_activation, float* grad_gate, float* grad_up);

}  // namespace toaster
