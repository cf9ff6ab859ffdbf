// Router and experts, section 10.

#include <algorithm>
#include <set>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
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

void ReferenceBackend::Expert(const Tensor& x, const ExpertMatrices& expert,
                              const std::vector<float>& weights, float limit,
                              Tensor& output) const {
  Tensor input, gate, up;
  LinearInput(x, *expert.w1, input);
  Multiply(input, *expert.w1, gate);
  LinearInput(x, *expert.w3, input);
  Multiply(input, *expert.w3, up);
  for (int64_t row = 0; row < x.rows(); ++row) {
    for (int64_t i = 0; i < gate.width(); ++i) {
      float g = Round(gate.Row(row)[i]), u = Round(up.Row(row)[i]);
      if (limit > 0) {
        g = std::min(g, limit);
        u = std::clamp(u, -limit, limit);
      }
      gate.Row(row)[i] = Round(weights[static_cast<size_t>(row)] * (g * Sigmoid(g) * u));
    }
  }
  LinearInput(gate, *expert.w2, input);
  Multiply(input, *expert.w2, output);
  for (int64_t i = 0; i < output.size(); ++i) output.data()[i] = Round(output.data()[i]);
}

void ReferenceBackend::Experts(const Tensor& x, const Routing& routing, ExpertSource& experts,
                               const ExpertMatrices& shared, float swiglu_limit, Tensor& output) {
  const int64_t k = routing.experts_per_token, d = shared.w2->rows;
  output.Reshape({x.rows(), d});
  output.Fill(0);
  Tensor inputs, results;
  for (int32_t e : std::set<int32_t>(routing.experts.begin(), routing.experts.end())) {
    std::vector<int64_t> rows;
    std::vector<float> weights;
    for (size_t i = 0; i < routing.experts.size(); ++i) {
      if (routing.experts[i] != e) continue;
      rows.push_back(static_cast<int64_t>(i) / k);
      weights.push_back(routing.weights[i]);
    }
    inputs.Reshape({static_cast<int64_t>(rows.size()), x.width()});
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(x.Row(rows[i]), x.width(), inputs.Row(static_cast<int64_t>(i)));
    }
    experts.Acquire({&e, 1}, true);
    Expert(inputs, experts.Matrices(e), weights, swiglu_limit, results);
    experts.Release({&e, 1});
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t c = 0; c < d; ++c)
        output.Row(rows[i])[c] += results.Row(static_cast<int64_t>(i))[c];
    }
  }
  // The shared expert has no routing weight; multiplying by one changes nothing.
  Expert(x, shared, std::vector<float>(static_cast<size_t>(x.rows()), 1.0f), swiglu_limit, results);
  for (int64_t i = 0; i < output.size(); ++i)
    output.data()[i] = Round(output.data()[i] + results.data()[i]);
}

}  // namespace toaster
