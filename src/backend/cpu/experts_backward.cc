// Backward of router and experts, section 10.

#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/row_gradients.h"
#include "tensor/summation.h"

namespace toaster {

void CpuBackward::Route(const Tensor& x, const RouteParameters& parameters, const Routing& routing,
                        std::span<const Segment> segments, std::span<const float> grad_weights,
                        BalanceLoss& balance, float* grad_gate, Tensor& grad_x) {
  const int64_t rows = x.rows(), count = parameters.gate.rows, k = routing.experts_per_token;
  Tensor grad({rows, count});
  std::vector<float> means(static_cast<size_t>(rows));
  for (const Segment& segment : segments) {
    std::vector<float> load(static_cast<size_t>(count), 0.0f);
    const float part = static_cast<float>(count) / static_cast<float>(k * segment.rows);
    for (int64_t i = segment.first_row * k; i < (segment.first_row + segment.rows) * k; ++i)
      load[static_cast<size_t>(routing.experts[static_cast<size_t>(i)])] += part;
    ForRows(segment.rows, 16, [&](int64_t i) {
      const int64_t row = segment.first_row + i;
      const float* affinity = routing.scores.Row(row);
      float* to = grad.Row(row);
      std::fill_n(to, count, 0.0f);
      RouteWeightsBackward(affinity, routing.experts.data() + row * k, k, parameters.scale,
                           grad_weights.data() + row * k, to);
      const float total = SumFloat(affinity, count);
      const float mean = DotFloat(affinity, load.data(), count) / total;
      means[static_cast<size_t>(row)] = mean;
      const float factor = balance.weight / (static_cast<float>(rows) * total);
      for (int64_t e = 0; e < count; ++e) {
        if (parameters.bias != nullptr) to[e] += factor * (load[static_cast<size_t>(e)] - mean);
        to[e] *= AffinitySlope(affinity[e]);
      }
    });
  }
  balance.value = 0;
  if (parameters.bias != nullptr) {
    for (const float mean : means) balance.value += mean;
    balance.value /= static_cast<double>(rows);
  }
  PackRows(x.data(), rows, x.width(), x.width(), false, false, inputs_);
  Product(inputs_, parameters.gate, 0, count, grad.data(), count, grad_gate, grad_x.data(),
          x.width(), true);
}

void CpuBackward::Expert(const ExpertMatrices& expert, const Tensor& inputs, const Tensor& grads,
                         float limit, const ExpertGradients& gradients, Tensor& grad_inputs) {
  ExpertRows& r = expert_rows_;
  const int64_t rows = inputs.rows(), d = inputs.width(), f = expert.w1->rows;
  for (Tensor* tensor :
       {&r.gate, &r.up, &r.activation, &r.grad_activation, &r.grad_gate, &r.grad_up})
    tensor->Reshape({rows, f});
  grad_inputs.Reshape({rows, d});
  r.grad_weights.resize(static_cast<size_t>(rows));
  // Forward again, as far as the activation.
  const bool bf16 = official();
  PackRows(inputs.data(), rows, d, d, bf16, Quantises(*expert.w1), inputs_);
  PackWeight(*expert.w1, 0, f, bf16, gate_weight_);
  PackWeight(*expert.w3, 0, f, bf16, up_weight_);
  Multiply(inputs_, gate_weight_, r.gate.data(), f);
  Multiply(inputs_, up_weight_, r.up.data(), f);
  ForRows(rows, 8, [&](int64_t row) {
    float *gate = r.gate.Row(row), *up = r.up.Row(row), *out = r.activation.Row(row);
    for (int64_t i = 0; i < f; ++i) gate[i] = Round(gate[i]);
    for (int64_t i = 0; i < f; ++i) up[i] = Round(up[i]);
    kernels_.swiglu(gate, up, f, limit, r.weights[static_cast<size_t>(row)], out);
    for (int64_t i = 0; i < f; ++i) out[i] = Round(out[i]);
  });
  PackRows(r.activation.data(), rows, f, f, bf16, Quantises(*expert.w2), activations_);
  Product(activations_, *expert.w2, 0, d, grads.data(), d, gradients.w2, r.grad_activation.data(),
          f, false);
  ForRows(rows, 8, [&](int64_t row) {
    const auto at = static_cast<size_t>(row);
    r.grad_weights[at] = kernels_.swiglu_backward(r.gate.Row(row), r.up.Row(row), f, limit,
                                                  r.weights[at], r.grad_activation.Row(row),
                                                  r.grad_gate.Row(row), r.grad_up.Row(row));
  });
  PackRows(r.grad_gate.data(), rows, f, f, bf16, false, a_);
  Accumulate(a_, false, gate_weight_, grad_inputs.data(), d, false);
  Accumulate(a_, true, inputs_, gradients.w1, d, true);
  PackRows(r.grad_up.data(), rows, f, f, bf16, false, a_);
  Accumulate(a_, false, up_weight_, grad_inputs.data(), d, true);
  Accumulate(a_, true, inputs_, gradients.w3, d, true);
}

void CpuBackward::Experts(const Tensor& x, const Routing& routing,
                          std::span<const ExpertMatrices> experts, const ExpertMatrices& shared,
                          float swiglu_limit, const Tensor& grad_output,
                          std::span<const ExpertGradients> gradients,
                          const ExpertGradients& shared_gradients, Tensor& grad_x,
                          std::vector<float>& grad_weights) {
  constexpr int64_t kColumns = 64;  // of a piece of work: a token may have an expert twice
  const int64_t k = routing.experts_per_token, d = x.width();
  ExpertRows& r = expert_rows_;
  grad_weights.assign(routing.experts.size(), 0.0f);
  r.weights.assign(static_cast<size_t>(x.rows()), 1.0f);
  Expert(shared, x, grad_output, swiglu_limit, shared_gradients, grad_x);
  std::vector<std::vector<int64_t>> places(experts.size());  // in routing.experts
  for (size_t i = 0; i < routing.experts.size(); ++i)
    places[static_cast<size_t>(routing.experts[i])].push_back(static_cast<int64_t>(i));
  for (size_t e = 0; e < experts.size(); ++e) {
    const auto rows = static_cast<int64_t>(places[e].size());
    if (rows == 0) continue;
    r.inputs.Reshape({rows, d});
    r.grads.Reshape({rows, d});
    r.weights.resize(static_cast<size_t>(rows));
    ForRows(rows, 16, [&](int64_t i) {
      const int64_t place = places[e][static_cast<size_t>(i)], row = place / k;
      r.weights[static_cast<size_t>(i)] = routing.weights[static_cast<size_t>(place)];
      std::copy_n(x.Row(row), d, r.inputs.Row(i));
      std::copy_n(grad_output.Row(row), d, r.grads.Row(i));
    });
    Expert(experts[e], r.inputs, r.grads, swiglu_limit, gradients[e], r.grad_inputs);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t place = places[e][static_cast<size_t>(i)];
      grad_weights[static_cast<size_t>(place)] = r.grad_weights[static_cast<size_t>(i)];
    }
    ForRows((d + kColumns - 1) / kColumns, 1, [&](int64_t piece) {
      const int64_t begin = piece * kColumns, end = std::min(begin + kColumns, d);
      for (int64_t i = 0; i < rows; ++i) {
        const float* from = r.grad_inputs.Row(i);
        float* to = grad_x.Row(places[e][static_cast<size_t>(i)] / k);
        for (int64_t c = begin; c < end; ++c) to[c] += from[c];
      }
    });
  }
}

}  // namespace toaster
