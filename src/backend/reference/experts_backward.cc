// Backward of router and experts, section 10.

#include <algorithm>
#include <vector>

#include "backend/reference/reference_backward.h"
#include "backend/row_gradients.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster {

void ReferenceBackward::Route(const Tensor& x, const RouteParameters& parameters,
                              const Routing& routing, std::span<const Segment> segments,
                              std::span<const float> grad_weights, BalanceLoss& balance,
                              float* grad_gate, Tensor& grad_x) {
  const int64_t rows = x.rows(), count = parameters.gate.rows, k = routing.experts_per_token;
  Tensor grad({rows, count});
  grad.Fill(0);
  balance.value = 0;
  for (const Segment& segment : segments) {
    // f_e: how often the segment's rows chose e, 1 if evenly.
    std::vector<float> load(static_cast<size_t>(count), 0.0f);
    const float part = static_cast<float>(count) / static_cast<float>(k * segment.rows);
    for (int64_t i = segment.first_row * k; i < (segment.first_row + segment.rows) * k; ++i)
      load[static_cast<size_t>(routing.experts[static_cast<size_t>(i)])] += part;
    for (int64_t row = segment.first_row; row < segment.first_row + segment.rows; ++row) {
      const float* affinity = routing.scores.Row(row);
      RouteWeightsBackward(affinity, routing.experts.data() + row * k, k, parameters.scale,
                           grad_weights.data() + row * k, grad.Row(row));
      const float total = SumFloat(affinity, count);
      const float mean = DotFloat(affinity, load.data(), count) / total;
      if (parameters.bias != nullptr) balance.value += mean;
      const float factor = balance.weight / (static_cast<float>(rows) * total);
      for (int64_t e = 0; e < count; ++e) {
        float& g = grad.Row(row)[e];
        if (parameters.bias != nullptr) g += factor * (load[static_cast<size_t>(e)] - mean);
        g *= AffinitySlope(affinity[e]);
      }
    }
  }
  balance.value /= static_cast<double>(rows);
  Product(x, parameters.gate, grad, grad_gate, &grad_x);
}

void ReferenceBackward::Expert(const Tensor& x, const ExpertMatrices& expert,
                               const std::vector<float>& weights, float limit,
                               const Tensor& grad_output, const ExpertGradients& gradients,
                               Tensor& grad_x, std::vector<float>& grad_weights) const {
  const int64_t rows = x.rows(), f = expert.w1->rows;
  Tensor input1, input3, gate({rows, f}), up({rows, f}), activation({rows, f}), input2,
      grad_activation({rows, f}), grad_gate({rows, f}), grad_up({rows, f});
  LinearInput(x, *expert.w1, input1);
  LinearInput(x, *expert.w3, input3);
  std::vector<float> w1(static_cast<size_t>(x.width())), w3(w1);
  for (int64_t i = 0; i < f; ++i) {
    ExpandRow(*expert.w1, i, w1.data());
    ExpandRow(*expert.w3, i, w3.data());
    for (int64_t row = 0; row < rows; ++row) {
      gate.Row(row)[i] = Round(DotFloat(input1.Row(row), w1.data(), x.width()));
      up.Row(row)[i] = Round(DotFloat(input3.Row(row), w3.data(), x.width()));
      float g = gate.Row(row)[i], u = up.Row(row)[i];
      if (limit > 0) {
        g = std::min(g, limit);
        u = std::clamp(u, -limit, limit);
      }
      activation.Row(row)[i] = Round(weights[static_cast<size_t>(row)] * (g * Sigmoid(g) * u));
    }
  }
  LinearInput(activation, *expert.w2, input2);
  grad_activation.Fill(0);
  Product(input2, *expert.w2, grad_output, gradients.w2, &grad_activation);
  grad_weights.resize(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    grad_weights[static_cast<size_t>(row)] =
        SwigluBackward(gate.Row(row), up.Row(row), f, limit, weights[static_cast<size_t>(row)],
                       grad_activation.Row(row), grad_gate.Row(row), grad_up.Row(row));
  }
  Product(input1, *expert.w1, grad_gate, gradients.w1, &grad_x);
  Product(input3, *expert.w3, grad_up, gradients.w3, &grad_x);
}

void ReferenceBackward::Experts(const Tensor& x, const Routing& routing,
                                std::span<const ExpertMatrices> experts,
                                const ExpertMatrices& shared, float swiglu_limit,
                                const Tensor& grad_output,
                                std::span<const ExpertGradients> gradients,
                                const ExpertGradients& shared_gradients, Tensor& grad_x,
                                std::vector<float>& grad_weights) {
  const int64_t k = routing.experts_per_token, d = x.width();
  std::vector<float> unused;
  grad_x.Reshape({x.rows(), d});
  grad_x.Fill(0);
  grad_weights.assign(routing.experts.size(), 0.0f);
  Expert(x, shared, std::vector<float>(static_cast<size_t>(x.rows()), 1.0f), swiglu_limit,
         grad_output, shared_gradients, grad_x, unused);
  Tensor inputs, grads, grad_inputs;
  for (size_t e = 0; e < experts.size(); ++e) {
    std::vector<int64_t> places;  // in routing.experts
    std::vector<float> weights, grad;
    for (size_t i = 0; i < routing.experts.size(); ++i) {
      if (routing.experts[i] != static_cast<int32_t>(e)) continue;
      places.push_back(static_cast<int64_t>(i));
      weights.push_back(routing.weights[i]);
    }
    if (places.empty()) continue;
    const auto rows = static_cast<int64_t>(places.size());
    inputs.Reshape({rows, d});
    grads.Reshape({rows, d});
    grad_inputs.Reshape({rows, d});
    grad_inputs.Fill(0);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = places[static_cast<size_t>(i)] / k;
      std::copy_n(x.Row(row), d, inputs.Row(i));
      std::copy_n(grad_output.Row(row), d, grads.Row(i));
    }
    Expert(inputs, experts[e], weights, swiglu_limit, grads, gradients[e], grad_inputs, grad);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t place = places[static_cast<size_t>(i)];
      grad_weights[static_cast<size_t>(place)] = grad[static_cast<size_t>(i)];
      for (int64_t c = 0; c < d; ++c) grad_x.Row(place / k)[c] += grad_inputs.Row(i)[c];
    }
  }
}

}  // namespace toaster
