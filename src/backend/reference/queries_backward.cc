// Backward of what moves and norms rows: embedding, norms, queries, stored entries, draft input.

#include <algorithm>
#include <vector>

#include "backend/reference/reference_backward.h"
#include "backend/row_gradients.h"
#include "tensor/rotate.h"

namespace toaster {

void ReferenceBackward::Embed(std::span<const int32_t> tokens, const Tensor& grad_output,
                              float* grad_embed) {
  const int64_t copies = grad_output.extent(1), d = grad_output.extent(2);
  for (size_t row = 0; row < tokens.size(); ++row) {
    const float* from = grad_output.Row(static_cast<int64_t>(row));
    float* to = grad_embed + tokens[row] * d;
    for (int64_t i = 0; i < copies * d; ++i) to[i % d] += from[i];
  }
}

void ReferenceBackward::RmsNorm(const Tensor& x, const Vector& weight, float eps,
                                const Tensor& grad_output, float* grad_weight, Tensor& grad_x) {
  if (&grad_x != &grad_output) grad_x.CopyFrom(grad_output);
  for (int64_t begin = 0; begin < x.size(); begin += weight.size) {
    float* grad = grad_x.data() + begin;
    NormaliseRowBackward(x.data() + begin, &weight, weight.size, eps, grad, grad_weight, grad);
  }
}

void ReferenceBackward::PrepareQueries(const Tensor& q, float eps, const Rotation& rotation,
                                       Tensor& grad) {
  const int64_t heads = q.extent(1), width = q.extent(2), pairs = rotation.cosine.width();
  for (int64_t row = 0; row < q.rows(); ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      float* g = grad.Row(row) + head * width;
      RotatePairs(g + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                  rotation.sine.Row(row), true);
      NormaliseRowBackward(q.Row(row) + head * width, nullptr, width, eps, g, nullptr, g);
    }
  }
}

void ReferenceBackward::StoreEntries(const Rotation& rotation, Tensor& grad) {
  const int64_t width = grad.width(), pairs = rotation.cosine.width();
  for (int64_t row = 0; row < grad.rows(); ++row) {
    RotatePairs(grad.Row(row) + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                rotation.sine.Row(row), true);
  }
}

void ReferenceBackward::AddToStreams(const Tensor& grad_streams, Tensor& grad_e) {
  const int64_t rows = grad_streams.extent(0), n = grad_streams.extent(1),
                d = grad_streams.extent(2);
  grad_e.Reshape({rows, d});
  grad_e.Fill(0);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < n * d; ++i) grad_e.Row(row)[i % d] += grad_streams.Row(row)[i];
  }
}

}  // namespace toaster
