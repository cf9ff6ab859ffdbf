// Backward of what moves and norms rows: embedding, norms, queries, stored entries, draft input.

#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/row_gradients.h"
#include "tensor/rotate.h"

namespace toaster {

namespace {

constexpr int64_t kChunk = 64;  // rows whose sums are made together

}  // namespace

void CpuBackward::AddRows(const Tensor& x, float* sums) {
  const int64_t width = x.width();
  pool_.ParallelFor(width, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = 0; row < x.rows(); ++row) {
      for (int64_t i = begin; i < end; ++i) sums[i] += x.Row(row)[i];
    }
  });
}

void CpuBackward::Embed(std::span<const int32_t> tokens, const Tensor& grad_output,
                        float* grad_embed) {
  const int64_t copies = grad_output.extent(1), d = grad_output.extent(2);
  // Columns are split: a token may come twice, and its rows add up in their order.
  pool_.ParallelFor(d, 64, [&](int64_t begin, int64_t end, int) {
    for (size_t row = 0; row < tokens.size(); ++row) {
      float* to = grad_embed + tokens[row] * d;
      for (int64_t copy = 0; copy < copies; ++copy) {
        const float* from = grad_output.Row(static_cast<int64_t>(row)) + copy * d;
        for (int64_t i = begin; i < end; ++i) to[i] += from[i];
      }
    }
  });
}

void CpuBackward::RmsNorm(const Tensor& x, const Vector& weight, float eps,
                          const Tensor& grad_output, float* grad_weight, Tensor& grad_x) {
  const int64_t width = weight.size, rows = x.size() / width;
  const int64_t chunks = (rows + kChunk - 1) / kChunk;
  grad_x.ReshapeLike(grad_output);
  partial_.Reshape({chunks, width});
  ForRows(chunks, 1, [&](int64_t chunk) {
    float* sums = partial_.Row(chunk);
    std::fill_n(sums, width, 0.0f);
    for (int64_t row = chunk * kChunk; row < std::min(rows, (chunk + 1) * kChunk); ++row) {
      const int64_t at = row * width;
      NormaliseRowBackward(x.data() + at, &weight, width, eps, grad_output.data() + at, sums,
                           grad_x.data() + at);
    }
  });
  if (grad_weight != nullptr) AddRows(partial_, grad_weight);
}

void CpuBackward::PrepareQueries(const Tensor& q, float eps, const Rotation& rotation,
                                 Tensor& grad) {
  const int64_t heads = q.extent(1), width = q.extent(2), pairs = rotation.cosine.width();
  ForRows(q.rows(), 4, [&](int64_t row) {
    for (int64_t head = 0; head < heads; ++head) {
      float* g = grad.Row(row) + head * width;
      RotatePairs(g + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                  rotation.sine.Row(row), true);
      NormaliseRowBackward(q.Row(row) + head * width, nullptr, width, eps, g, nullptr, g);
    }
  });
}

void CpuBackward::StoreEntries(const Rotation& rotation, Tensor& grad) {
  const int64_t width = grad.width(), pairs = rotation.cosine.width();
  ForRows(grad.rows(), 64, [&](int64_t row) {
    RotatePairs(grad.Row(row) + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                rotation.sine.Row(row), true);
  });
}

void CpuBackward::AddToStreams(const Tensor& grad_streams, Tensor& grad_e) {
  const int64_t rows = grad_streams.extent(0), n = grad_streams.extent(1),
                d = grad_streams.extent(2);
  grad_e.Reshape({rows, d});
  ForRows(rows, 16, [&](int64_t row) {
    float* to = grad_e.Row(row);
    std::fill_n(to, d, 0.0f);
    for (int64_t k = 0; k < n; ++k) {
      for (int64_t i = 0; i < d; ++i) to[i] += grad_streams.Row(row)[k * d + i];
    }
  });
}

}  // namespace toaster
