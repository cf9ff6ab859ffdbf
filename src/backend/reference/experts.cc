// Router and experts, section 10.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
#include "tensor/block_quantization.h"
#include "tensor/elementary.h"

namespace toaster {

void ReferenceBackend::Route(const Tensor& x, const RouteParameters& parameters, Routing& routing) {
  const int64_t k = parameters.experts_per_token;
  Multiply(x, parameters.gate, routing.scores);
  routing.experts_per_token = k;
  routing.experts.resize(static_cast<size_t>(x.rows() * k));
  routing.weights.resize(routing.experts.size());
  for (int64_t row = 0; row < x.rows(); ++row) {
    const int32_t* table =
        parameters.bias == nullptr ? parameters.table_experts.data() + row * k : nullptr;
    RouteRow(routing.scores.Row(row), parameters, table, routing.experts.data() + row * k,
             routing.weights.data() + row * k);
  }
}

void ReferenceBackend::Expert(const float* x, int64_t width, const ExpertMatrices& expert,
                              const float* route_weight, float limit, float* output) const {
  Tensor row({1, width}), input, gate, up, y;
  std::copy_n(x, width, row.data());
  LinearInput(row, *expert.w1, input);
  Multiply(input, *expert.w1, gate);
  LinearInput(row, *expert.w3, input);
  Multiply(input, *expert.w3, up);
  for (int64_t i = 0; i < gate.size(); ++i) {
    float g = Round(gate.data()[i]), u = Round(up.data()[i]);
    if (limit > 0) {
      g = std::min(g, limit);
      u = std::clamp(u, -limit, limit);
    }
    float a = g * Sigmoid(g) * u;
    if (route_weight != nullptr) a *= *route_weight;
    gate.data()[i] = Round(a);
  }
  LinearInput(gate, *expert.w2, input);
  Multiply(input, *expert.w2, y);
  for (int64_t i = 0; i < y.size(); ++i) output[i] = Round(y.data()[i]);
}

void ReferenceBackend::Experts(const Tensor& x, const Routing& routing,
                               std::span<const ExpertMatrices> experts,
                               const ExpertMatrices& shared, float swiglu_limit, Tensor& output) {
  const int64_t k = routing.experts_per_token, d = shared.w2->rows;
  output.Reshape({x.rows(), d});
  output.Fill(0);
  std::vector<float> y(static_cast<size_t>(d));
  std::vector<int64_t> slots(static_cast<size_t>(k));
  for (int64_t row = 0; row < x.rows(); ++row) {
    const int32_t* chosen = routing.experts.data() + row * k;
    std::iota(slots.begin(), slots.end(), 0);
    std::stable_sort(slots.begin(), slots.end(),
                     [&](int64_t a, int64_t b) { return chosen[a] < chosen[b]; });
    for (const int64_t slot : slots) {
      Expert(x.Row(row), x.width(), experts[static_cast<size_t>(chosen[slot])],
             routing.weights.data() + row * k + slot, swiglu_limit, y.data());
      for (int64_t i = 0; i < d; ++i) output.Row(row)[i] += y[static_cast<size_t>(i)];
    }
    Expert(x.Row(row), x.width(), shared, nullptr, swiglu_limit, y.data());
    for (int64_t i = 0; i < d; ++i) {
      output.Row(row)[i] = Round(output.Row(row)[i] + y[static_cast<size_t>(i)]);
    }
  }
}

}  // namespace toaster
