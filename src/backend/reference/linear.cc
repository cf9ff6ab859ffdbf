// Matrix products, sections 2, 7.6, 11.2 and 11.3.

#include <algorithm>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "tensor/block_quantization.h"
#include "tensor/summation.h"

namespace toaster {

float ReferenceBackend::Dot(const float* a, const float* b, int64_t n) const {
  return official() ? DotPairs(a, b, n) : DotFloat(a, b, n);
}

void ReferenceBackend::LinearInput(const Tensor& x, const Matrix& weight, Tensor& input) const {
  input.CopyFrom(x);
  if (quantises() && weight.quantised()) QuantizeE4m3(x.data(), x.size(), 128, input.data());
}

void ReferenceBackend::Multiply(const Tensor& x, const Matrix& weight, Tensor& y) const {
  y.Reshape({x.rows(), weight.rows});
  std::vector<float> row(static_cast<size_t>(weight.columns));
  for (int64_t r = 0; r < weight.rows; ++r) {
    ExpandRow(weight, r, row.data());
    for (int64_t t = 0; t < x.rows(); ++t) y.Row(t)[r] = Dot(x.Row(t), row.data(), weight.columns);
  }
}

void ReferenceBackend::Linear(const Tensor& x, std::span<const Projection> projections) {
  Tensor input;
  for (const Projection& projection : projections) {
    LinearInput(x, *projection.weight, input);
    Tensor& y = *projection.output;
    Multiply(input, *projection.weight, y);
    if (!projection.round_output) continue;
    for (int64_t i = 0; i < y.size(); ++i) y.data()[i] = Round(y.data()[i]);
  }
}

void ReferenceBackend::GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                                     Tensor& output) {
  const int64_t k = weight.columns, rank = weight.rows / groups;
  output.Reshape({x.rows(), weight.rows});
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t r = 0; r < weight.rows; ++r) {
    ExpandRow(weight, r, row.data());
    for (int64_t t = 0; t < x.rows(); ++t) {
      output.Row(t)[r] = Round(Dot(x.Row(t) + r / rank * k, row.data(), k));
    }
  }
}

}  // namespace toaster
