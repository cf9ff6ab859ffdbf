#pragma once

// Coefficients of the hyper-connections (section 5) and their gradients: the same for every backend
// that computes on the host.
//
// Tokens are taken together, one in each lane of a vector: one token's matrix is too small for
// vectors, and each of its Sinkhorn divisions waits for the one before. What a token gets does not
// depend on the others.

#include <cstdint>

#include "backend/backend.h"

namespace toaster {

/// From the products u [tokens, (2+n)n] of 5.1 step 2: pre [tokens, n], post [tokens, n] and comb
/// [tokens, n, n] with its Sinkhorn rounds.
void HyperCoefficients(const float* u, int64_t tokens, const HyperParameters& parameters, int64_t n,
                       float* pre, float* post, float* comb);
/// From the gradients of pre, post and comb to grad_logits [tokens, (2+n)n] (set), those of
/// u * scale + base.
void HyperCoefficientsBackward(const float* u, int64_t tokens, const HyperParameters& parameters,
                               int64_t n, const float* grad_pre, const float* grad_post,
                               const float* grad_comb, float* grad_logits);

/// pre [n] alone, of one token: all that 5.4 has, and the first n of what 5.1 has.
void HyperReadCoefficients(const float* u, const HyperParameters& parameters, int64_t n,
                           float* pre);
/// Sets grad_logits [n].
void HyperReadCoefficientsBackward(const float* u, const HyperParameters& parameters, int64_t n,
                                   const float* grad_pre, float* grad_logits);

/// Doubly stochastic matrices of section 5.2 backward: logits [tokens, n, n], grad_logits set.
void SinkhornBackward(const float* logits, int64_t tokens, int64_t n, int64_t iterations, float eps,
                      const float* grad_output, float* grad_logits);

/// One token's part of u * scale + base: grad_logits [mixes] turns into the gradient of u; base
/// [mixes] and scale (one for the head, else one each for pre, post and comb) are added to.
void HyperLogitsBackward(const float* u, const HyperParameters& parameters, int64_t n, bool head,
                         float* grad_logits, float* grad_base, float* grad_scale);

}  // namespace toaster
