#include "backend/row_gradients.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "tensor/elementary.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

void NormaliseRowBackward(const float* x, const Vector* weight, int64_t n, float eps,
                          const float* grad_output, float* grad_weight, float* grad_x) {
  // y = f x w with f = (mean(x^2) + eps)^(-1/2): dx = f (w dy - x f^2 mean(w dy x)).
  const float factor = 1.0f / std::sqrt(DotFloat(x, x, n) / static_cast<float>(n) + eps);
  // Blocks of a width that is known and copies of what grad_x may be: vector instructions.
  const auto blocks = [&](const auto& body) {
    int64_t begin = 0;
    for (; begin + kLanes <= n; begin += kLanes)
      body(begin, std::integral_constant<int64_t, kLanes>{});
    if (begin < n) body(begin, n - begin);
  };
  // grad_output times the weight.
  const auto weighted = [&](int64_t begin, auto count, float* g) {
    float w[kLanes];
    if (weight != nullptr && weight->format == NumberFormat::kBf16) {
      for (int64_t i = 0; i < count; ++i)
        w[i] = Bf16ToFloat(LoadUnaligned<uint16_t>(weight->data + 2 * (begin + i)));
    } else {
      for (int64_t i = 0; i < count; ++i) w[i] = weight == nullptr ? 1.0f : (*weight)[begin + i];
    }
    for (int64_t i = 0; i < count; ++i) g[i] = grad_output[begin + i] * w[i];
  };
  float lanes[kLanes] = {};
  blocks([&](int64_t begin, auto count) {
    float g[kLanes];
    weighted(begin, count, g);
    for (int64_t i = 0; i < count; ++i) lanes[i] = std::fma(g[i], x[begin + i], lanes[i]);
  });
  const float shrink = FoldLanes(lanes) / static_cast<float>(n) * factor * factor;
  blocks([&](int64_t begin, auto count) {
    float g[kLanes];
    weighted(begin, count, g);
    if (grad_weight != nullptr) {
      for (int64_t i = 0; i < count; ++i)
        grad_weight[begin + i] += grad_output[begin + i] * x[begin + i] * factor;
    }
    for (int64_t i = 0; i < count; ++i) g[i] = factor * (g[i] - x[begin + i] * shrink);
    for (int64_t i = 0; i < count; ++i) grad_x[begin + i] = g[i];
  });
}

void MakeCompressedRowBackward(std::span<const PoolSlot> slots,
                               const CompressParameters& parameters, int64_t position,
                               bool official, const float* grad_row,
                               std::span<const PoolSlotGradient> gradients, float* grad_norm) {
  const int64_t width = parameters.norm.size;
  const auto pairs = static_cast<int64_t>(parameters.frequencies.size());
  std::vector<float> weights(slots.size() * static_cast<size_t>(width));
  std::vector<float> buffer(static_cast<size_t>(3 * width + 2 * pairs));
  float *exact = buffer.data(), *pooled = exact + width, *grad = pooled + width,
        *cosine = grad + width, *sine = cosine + pairs;
  for (int64_t i = 0; i < width; ++i) {
    float maximum = slots[0].scores[i];
    for (const PoolSlot& slot : slots) maximum = std::max(maximum, slot.scores[i]);
    float total = 0, weighted = 0;
    for (size_t s = 0; s < slots.size(); ++s) {
      float& e = weights[s * static_cast<size_t>(width) + static_cast<size_t>(i)];
      e = Exp(slots[s].scores[i] - maximum);
      total += e;
      weighted = std::fma(e, slots[s].values[i], weighted);
    }
    for (size_t s = 0; s < slots.size(); ++s)
      weights[s * static_cast<size_t>(width) + static_cast<size_t>(i)] /= total;
    exact[i] = weighted / total;
    pooled[i] = official ? RoundBf16(exact[i]) : exact[i];
  }

  std::copy_n(grad_row, width, grad);
  if (parameters.indexer_key) HadamardTransform(grad, width);  // its own inverse and transpose
  RotationAngles(position, parameters.frequencies, cosine, sine);
  RotatePairs(grad + width - 2 * pairs, 2 * pairs, cosine, sine, true);
  NormaliseRowBackward(pooled, &parameters.norm, width, parameters.norm_eps, grad, grad_norm, grad);
  for (size_t s = 0; s < slots.size(); ++s) {
    const float* p = weights.data() + s * static_cast<size_t>(width);
    for (int64_t i = 0; i < width; ++i) {
      const float g = p[i] * grad[i];
      gradients[s].values[i] += g;
      gradients[s].scores[i] += g * (slots[s].values[i] - exact[i]);
    }
  }
}

void RouteWeightsBackward(const float* affinity, const int32_t* experts, int64_t count, float scale,
                          const float* grad_weights, float* grad_affinity) {
  float total = 0, dot = 0;
  for (int64_t i = 0; i < count; ++i) total += affinity[experts[i]];
  total += 1e-20f;
  for (int64_t i = 0; i < count; ++i) dot += grad_weights[i] * affinity[experts[i]];
  for (int64_t i = 0; i < count; ++i)
    grad_affinity[experts[i]] += (grad_weights[i] - dot / total) * scale / total;
}

float AffinitySlope(float affinity) {
  if (affinity == 0) return 0;
  // softplus'(z) = sigmoid(z) = 1 - e^(-softplus(z)), and softplus(z) is the affinity squared.
  const double a = affinity;
  return static_cast<float>(-std::expm1(-a * a) / (2 * a));
}

float SwigluBackward(const float* gate, const float* up, int64_t n, float limit, float weight,
                     const float* grad_activation, float* grad_gate, float* grad_up) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    const bool gate_clamped = limit > 0 && gate[i] > limit;
    const bool up_clamped = limit > 0 && std::fabs(up[i]) > limit;
    const float g = gate_clamped ? limit : gate[i];
    const float u = up_clamped ? std::copysign(limit, up[i]) : up[i];
    const float s = Sigmoid(g), silu = g * s, grad = grad_activation[i];
    lanes[i % kLanes] = std::fma(grad, silu * u, lanes[i % kLanes]);
    grad_gate[i] = gate_clamped ? 0.0f : weight * grad * u * (s + silu * (1.0f - s));
    grad_up[i] = up_clamped ? 0.0f : weight * grad * silu;
  }
  return FoldLanes(lanes);
}

}  // namespace toaster
