// Backward of the matrix products and of the loss at the head.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/reference/reference_backward.h"
#include "tensor/block_quantization.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster {

void ReferenceBackward::LinearInput(const Tensor& x, const Matrix& weight, Tensor& input) const {
  input.CopyFrom(x);
  if (quantises() && weight.quantised()) QuantizeE4m3(x.data(), x.size(), 128, input.data());
}

void ReferenceBackward::Product(const Tensor& x, const Matrix& weight, const Tensor& grad_y,
                                float* grad_weight, Tensor* grad_x) const {
  const int64_t tokens = grad_y.rows(), outputs = weight.rows, inputs = weight.columns;
  if (grad_x != nullptr) {
    std::vector<float> transposed(static_cast<size_t>(inputs * outputs)),
        row(static_cast<size_t>(inputs));
    for (int64_t r = 0; r < outputs; ++r) {
      ExpandRow(weight, r, row.data());
      for (int64_t c = 0; c < inputs; ++c)
        transposed[static_cast<size_t>(c * outputs + r)] = row[static_cast<size_t>(c)];
    }
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < inputs; ++c)
        grad_x->Row(t)[c] += DotFloat(grad_y.Row(t), transposed.data() + c * outputs, outputs);
    }
  }
  if (grad_weight == nullptr) return;
  std::vector<float> x_columns(static_cast<size_t>(inputs * tokens)),
      y_column(static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < inputs; ++c)
      x_columns[static_cast<size_t>(c * tokens + t)] = x.Row(t)[c];
  }
  for (int64_t r = 0; r < outputs; ++r) {
    for (int64_t t = 0; t < tokens; ++t) y_column[static_cast<size_t>(t)] = grad_y.Row(t)[r];
    for (int64_t c = 0; c < inputs; ++c) {
      grad_weight[r * inputs + c] +=
          DotFloat(y_column.data(), x_columns.data() + c * tokens, tokens);
    }
  }
}

void ReferenceBackward::Linear(const Tensor& x, std::span<const ProjectionGradient> projections,
                               Tensor* grad_x) {
  Tensor input;
  for (const ProjectionGradient& projection : projections) {
    LinearInput(x, *projection.weight, input);
    Product(input, *projection.weight, *projection.grad_output, projection.grad_weight, grad_x);
  }
}

void ReferenceBackward::GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                                      const Tensor& grad_output, float* grad_weight,
                                      Tensor& grad_x) {
  const int64_t k = weight.columns, rank = weight.rows / groups, rows = x.rows();
  grad_x.Reshape({rows, groups * k});
  grad_x.Fill(0);
  std::vector<float> w(static_cast<size_t>(k));
  for (int64_t r = 0; r < weight.rows; ++r) {
    const int64_t at = r / rank * k;  // where the group's inputs begin
    ExpandRow(weight, r, w.data());
    for (int64_t t = 0; t < rows; ++t) {
      const float g = grad_output.Row(t)[r];
      const float* from = x.Row(t) + at;
      float* to = grad_x.Row(t) + at;
      for (int64_t c = 0; c < k; ++c) {
        to[c] = std::fma(g, w[static_cast<size_t>(c)], to[c]);
        grad_weight[r * k + c] = std::fma(g, from[c], grad_weight[r * k + c]);
      }
    }
  }
}

double ReferenceBackward::CrossEntropy(const Tensor& x, const Matrix& head,
                                       std::span<const int32_t> targets, float weight,
                                       float* grad_head, Tensor& grad_x) {
  grad_x.Reshape({x.rows(), head.columns});
  grad_x.Fill(0);
  double loss = 0;
  Tensor one({1, head.columns}), logits({1, head.rows}), grad_one({1, head.columns});
  std::vector<float> expanded(static_cast<size_t>(head.columns));
  for (int64_t row = 0; row < x.rows(); ++row) {
    const int32_t target = targets[static_cast<size_t>(row)];
    if (target < 0) continue;
    for (int64_t v = 0; v < head.rows; ++v) {
      ExpandRow(head, v, expanded.data());
      logits.data()[v] = DotFloat(x.Row(row), expanded.data(), head.columns);
    }
    const float maximum = *std::max_element(logits.data(), logits.data() + head.rows);
    double total = 0;
    for (int64_t v = 0; v < head.rows; ++v)
      total += std::exp(static_cast<double>(logits.data()[v]) - maximum);
    loss += std::log(total) + maximum - logits.data()[target];
    for (int64_t v = 0; v < head.rows; ++v) {
      const double p = std::exp(static_cast<double>(logits.data()[v]) - maximum) / total;
      logits.data()[v] = weight * static_cast<float>(v == target ? p - 1.0 : p);
    }
    std::copy_n(x.Row(row), head.columns, one.data());
    grad_one.Fill(0);
    Product(one, head, logits, grad_head, &grad_one);
    std::copy_n(grad_one.data(), head.columns, grad_x.Row(row));
  }
  return loss;
}

}  // namespace toaster
