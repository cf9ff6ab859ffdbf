#include "backend/hyper_coefficients.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tensor/elementary.h"
#include "tensor/tensor.h"

namespace toaster {

namespace {

constexpr int64_t kMaxStreams = 8;

// A number of each of the tokens that are taken together.
using EightFloats __attribute__((vector_size(32))) = float;

template <typename Numbers>
constexpr int64_t kTokens = sizeof(Numbers) / sizeof(float);

template <typename Numbers>
Numbers Load(const float* from) {
  Numbers x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

template <typename Numbers>
void Store(Numbers x, float* to) {
  std::memcpy(to, &x, sizeof x);
}

// The lines of a matrix [n, n] of lanes: number i of line g lies at (g * line + i * step) lanes.
struct Lines {
  int64_t line, step;
  int64_t at(int64_t g, int64_t i) const { return g * line + i * step; }
};
Lines Rows(int64_t n) { return {n, 1}; }
Lines Columns(int64_t n) { return {1, n}; }
// Of the divisions after the softmax: columns, then (rows, columns) ...
Lines OfStep(int64_t step, int64_t n) { return step % 2 == 0 ? Columns(n) : Rows(n); }

// Divides every line by its sum + eps and keeps these, if asked for.
template <typename Numbers>
void Divide(float* m, int64_t n, Lines lines, float eps, float* sums) {
  constexpr int64_t kLanes = kTokens<Numbers>;
  for (int64_t g = 0; g < n; ++g) {
    Numbers sum = {};
    for (int64_t i = 0; i < n; ++i) sum += Load<Numbers>(m + lines.at(g, i) * kLanes);
    sum += eps;
    for (int64_t i = 0; i < n; ++i) {
      float* x = m + lines.at(g, i) * kLanes;
      Store(Load<Numbers>(x) / sum, x);
    }
    if (sums != nullptr) Store(sum, sums + g * kLanes);
  }
}

// Softmax of each row.
template <typename Numbers>
void SoftmaxRows(float* m, int64_t n) {
  constexpr int64_t kLanes = kTokens<Numbers>;
  for (int64_t j = 0; j < n; ++j) {
    float* row = m + j * n * kLanes;
    Numbers maximum = Load<Numbers>(row);
    for (int64_t k = 1; k < n; ++k) {
      const auto x = Load<Numbers>(row + k * kLanes);
      maximum = maximum < x ? x : maximum;
    }
    for (int64_t k = 0; k < n; ++k)
      Store(Load<Numbers>(row + k * kLanes) - maximum, row + k * kLanes);
    for (int64_t i = 0; i < n * kLanes; ++i) row[i] = Exp(row[i]);
    Numbers sum = {};
    for (int64_t k = 0; k < n; ++k) sum += Load<Numbers>(row + k * kLanes);
    for (int64_t k = 0; k < n; ++k) Store(Load<Numbers>(row + k * kLanes) / sum, row + k * kLanes);
  }
}

// Doubly stochastic matrices from logits, in place (section 5.2): rows j, columns k.
template <typename Numbers>
void Sinkhorn(float* m, int64_t n, int64_t iterations, float eps) {
  SoftmaxRows<Numbers>(m, n);
  for (int64_t i = 0; i < n * n * kTokens<Numbers>; ++i) m[i] += eps;
  for (int64_t step = 0; step < 2 * iterations - 1; ++step)
    Divide<Numbers>(m, n, OfStep(step, n), eps, nullptr);
}

// Backward: m are logits and turn into their gradients; grad is used up.
template <typename Numbers>
void SinkhornBackwardOfLanes(float* m, int64_t n, int64_t iterations, float eps, float* grad,
                             AlignedArray<float>& work) {
  // Every division is m' = m / (sum + eps) over a row or column, so dm = (dm' - sum(dm' m')) / (sum
  // + eps): of each step its result and its denominators are kept.
  constexpr int64_t kLanes = kTokens<Numbers>;
  const int64_t size = n * n * kLanes, steps = 2 * iterations - 1;
  work.Resize((steps + 1) * size + steps * n * kLanes);
  float *result = work.data(), *sums = result + (steps + 1) * size;  // the first: of the softmax
  SoftmaxRows<Numbers>(m, n);
  std::copy_n(m, size, result);
  for (int64_t i = 0; i < size; ++i) m[i] += eps;
  for (int64_t step = 0; step < steps; ++step) {
    Divide<Numbers>(m, n, OfStep(step, n), eps, sums + step * n * kLanes);
    std::copy_n(m, size, result + (step + 1) * size);
  }
  // Of each line: the sum of gradient times result.
  const auto dot = [&](const float* y, Lines lines, int64_t g) {
    Numbers sum = {};
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = lines.at(g, i) * kLanes;
      sum += Load<Numbers>(grad + at) * Load<Numbers>(y + at);
    }
    return sum;
  };
  for (int64_t step = steps - 1; step >= 0; --step) {
    const Lines lines = OfStep(step, n);
    for (int64_t g = 0; g < n; ++g) {
      const Numbers share = dot(result + (step + 1) * size, lines, g),
                    sum = Load<Numbers>(sums + (step * n + g) * kLanes);
      for (int64_t i = 0; i < n; ++i) {
        float* x = grad + lines.at(g, i) * kLanes;
        Store((Load<Numbers>(x) - share) / sum, x);
      }
    }
  }
  for (int64_t g = 0; g < n; ++g) {
    const Numbers share = dot(result, Rows(n), g);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = Rows(n).at(g, i) * kLanes;
      Store(Load<Numbers>(result + at) * (Load<Numbers>(grad + at) - share), m + at);
    }
  }
}

// x [tokens, width] to lanes and back. Lanes without a token hold 0.
void ToLanes(const float* x, int64_t tokens, int64_t stride, int64_t width, int64_t lanes,
             float* to) {
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t t = 0; t < lanes; ++t) to[i * lanes + t] = t < tokens ? x[t * stride + i] : 0.0f;
  }
}
void FromLanes(const float* x, int64_t tokens, int64_t stride, int64_t width, int64_t lanes,
               float* to) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) to[t * stride + i] = x[i * lanes + t];
  }
}

// u * scale + base of some tokens in lanes: pre, post, comb.
void Logits(const float* u, int64_t tokens, const HyperParameters& parameters, int64_t n,
            int64_t lanes, float* logits) {
  const int64_t mixes = (2 + n) * n;
  ToLanes(u, tokens, mixes, mixes, lanes, logits);
  for (int64_t i = 0; i < mixes; ++i) {
    const float scale = parameters.scale[std::min<int64_t>(i / n, 2)], base = parameters.base[i];
    for (int64_t t = 0; t < lanes; ++t)
      logits[i * lanes + t] = logits[i * lanes + t] * scale + base;
  }
}

template <typename Numbers>
void CoefficientsOfLanes(const float* u, int64_t tokens, const HyperParameters& parameters,
                         int64_t n, float* pre, float* post, float* comb) {
  constexpr int64_t kLanes = kTokens<Numbers>;
  float logits[(2 + kMaxStreams) * kMaxStreams * kLanes];
  float *post_lanes = logits + n * kLanes, *comb_lanes = logits + 2 * n * kLanes;
  Logits(u, tokens, parameters, n, kLanes, logits);
  for (int64_t i = 0; i < 2 * n * kLanes; ++i) logits[i] = Sigmoid(logits[i]);
  for (int64_t i = 0; i < n * kLanes; ++i) logits[i] += parameters.eps;
  for (int64_t i = 0; i < n * kLanes; ++i) post_lanes[i] *= 2.0f;
  Sinkhorn<Numbers>(comb_lanes, n, parameters.sinkhorn_iterations, parameters.eps);
  FromLanes(logits, tokens, n, n, kLanes, pre);
  FromLanes(post_lanes, tokens, n, n, kLanes, post);
  FromLanes(comb_lanes, tokens, n * n, n * n, kLanes, comb);
}

template <typename Numbers>
void CoefficientsBackwardOfLanes(const float* u, int64_t tokens, const HyperParameters& parameters,
                                 int64_t n, const float* grad_pre, const float* grad_post,
                                 const float* grad_comb, float* grad_logits,
                                 AlignedArray<float>& work) {
  constexpr int64_t kLanes = kTokens<Numbers>;
  const int64_t mixes = (2 + n) * n;
  float logits[(2 + kMaxStreams) * kMaxStreams * kLanes],
      grad[(2 + kMaxStreams) * kMaxStreams * kLanes];
  Logits(u, tokens, parameters, n, kLanes, logits);
  ToLanes(grad_pre, tokens, n, n, kLanes, grad);
  ToLanes(grad_post, tokens, n, n, kLanes, grad + n * kLanes);
  ToLanes(grad_comb, tokens, n * n, n * n, kLanes, grad + 2 * n * kLanes);
  for (int64_t i = n * kLanes; i < 2 * n * kLanes; ++i) grad[i] *= 2.0f;
  for (int64_t i = 0; i < 2 * n * kLanes; ++i) {
    const float s = Sigmoid(logits[i]);
    logits[i] = grad[i] * s * (1.0f - s);
  }
  SinkhornBackwardOfLanes<Numbers>(logits + 2 * n * kLanes, n, parameters.sinkhorn_iterations,
                                   parameters.eps, grad + 2 * n * kLanes, work);
  FromLanes(logits, tokens, mixes, mixes, kLanes, grad_logits);
}

// Calls body(what holds a number of each, first token, tokens).
template <typename Body>
void ForTokens(int64_t tokens, const Body& body) {
  for (int64_t t = 0; t < tokens; t += kTokens<EightFloats>) {
    const int64_t count = std::min(kTokens<EightFloats>, tokens - t);
    if (count == 1) {
      body(float{}, t, count);
    } else {
      body(EightFloats{}, t, count);
    }
  }
}

}  // namespace

void HyperCoefficients(const float* u, int64_t tokens, const HyperParameters& parameters, int64_t n,
                       float* pre, float* post, float* comb) {
  CHECK(n <= kMaxStreams, "{} streams", n);
  ForTokens(tokens, [&](auto numbers, int64_t t, int64_t count) {
    using Numbers = decltype(numbers);
    CoefficientsOfLanes<Numbers>(u + t * (2 + n) * n, count, parameters, n, pre + t * n,
                                 post + t * n, comb + t * n * n);
  });
}

void HyperCoefficientsBackward(const float* u, int64_t tokens, const HyperParameters& parameters,
                               int64_t n, const float* grad_pre, const float* grad_post,
                               const float* grad_comb, float* grad_logits) {
  CHECK(n <= kMaxStreams, "{} streams", n);
  AlignedArray<float> work;
  const int64_t mixes = (2 + n) * n;
  ForTokens(tokens, [&](auto numbers, int64_t t, int64_t count) {
    using Numbers = decltype(numbers);
    CoefficientsBackwardOfLanes<Numbers>(u + t * mixes, count, parameters, n, grad_pre + t * n,
                                         grad_post + t * n, grad_comb + t * n * n,
                                         grad_logits + t * mixes, work);
  });
}

void HyperReadCoefficients(const float* u, const HyperParameters& parameters, int64_t n,
                           float* pre) {
  for (int64_t j = 0; j < n; ++j) {
    pre[j] = Sigmoid(u[j] * parameters.scale[0] + parameters.base[j]) + parameters.eps;
  }
}

void HyperReadCoefficientsBackward(const float* u, const HyperParameters& parameters, int64_t n,
                                   const float* grad_pre, float* grad_logits) {
  for (int64_t j = 0; j < n; ++j) {
    const float s = Sigmoid(u[j] * parameters.scale[0] + parameters.base[j]);
    grad_logits[j] = grad_pre[j] * s * (1.0f - s);
  }
}

void SinkhornBackward(const float* logits, int64_t tokens, int64_t n, int64_t iterations, float eps,
                      const float* grad_output, float* grad_logits) {
  CHECK(n <= kMaxStreams, "{} streams", n);
  AlignedArray<float> work;
  ForTokens(tokens, [&](auto numbers, int64_t t, int64_t count) {
    using Numbers = decltype(numbers);
    constexpr int64_t kLanes = kTokens<Numbers>;
    float lanes[kMaxStreams * kMaxStreams * kLanes], grad[kMaxStreams * kMaxStreams * kLanes];
    const int64_t size = n * n;
    ToLanes(logits + t * size, count, size, size, kLanes, lanes);
    ToLanes(grad_output + t * size, count, size, size, kLanes, grad);
    SinkhornBackwardOfLanes<Numbers>(lanes, n, iterations, eps, grad, work);
    FromLanes(lanes, count, size, size, kLanes, grad_logits + t * size);
  });
}

void HyperLogitsBackward(const float* u, const HyperParameters& parameters, int64_t n, bool head,
                         float* grad_logits, float* grad_base, float* grad_scale) {
  const int64_t mixes = head ? n : (2 + n) * n;
  for (int64_t i = 0; i < mixes; ++i) {
    const int64_t part = std::min<int64_t>(i / n, 2);
    grad_base[i] += grad_logits[i];
    grad_scale[part] += grad_logits[i] * u[i];
    grad_logits[i] *= parameters.scale[part];
  }
}

}  // namespace toaster
