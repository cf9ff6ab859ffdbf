// Manifold-constrained hyper-connections, section 5.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

// Doubly stochastic matrix from logits a [n, n], in place (5.2): rows j, columns k.
void Sinkhorn(float* a, int64_t n, int64_t iterations, float eps) {
  const auto divide_rows = [&] {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < n; ++k) sum += a[j * n + k];
      for (int64_t k = 0; k < n; ++k) a[j * n + k] /= sum + eps;
    }
  };
  const auto divide_columns = [&] {
    for (int64_t k = 0; k < n; ++k) {
      float sum = 0;
      for (int64_t j = 0; j < n; ++j) sum += a[j * n + k];
      for (int64_t j = 0; j < n; ++j) a[j * n + k] /= sum + eps;
    }
  };
  for (int64_t j = 0; j < n; ++j) {
    float* row = a + j * n;
    const float maximum = *std::max_element(row, row + n);
    float sum = 0;
    for (int64_t k = 0; k < n; ++k) sum += row[k] = Exp(row[k] - maximum);
    for (int64_t k = 0; k < n; ++k) row[k] = row[k] / sum + eps;
  }
  divide_columns();
  for (int64_t i = 1; i < iterations; ++i) {
    divide_rows();
    divide_columns();
  }
}

// sum over j of weights[j] * streams[j], j rising.
void WeightedStreams(const float* streams, const float* weights, int64_t n, int64_t d, float* sum) {
  for (int64_t i = 0; i < d; ++i) {
    float s = 0;
    for (int64_t j = 0; j < n; ++j) s = std::fma(weights[j], streams[j * d + i], s);
    sum[i] = s;
  }
}

}  // namespace

void ReferenceBackend::HyperMix(const float* streams, int64_t width,
                                const HyperParameters& parameters, float* mixes) const {
  const float mean = DotFloat(streams, streams, width) / static_cast<float>(width);
  const float factor = 1.0f / std::sqrt(mean + parameters.norm_eps);
  std::vector<float> row(static_cast<size_t>(width));
  for (int64_t r = 0; r < parameters.fn.rows; ++r) {
    ExpandRow(parameters.fn, r, row.data());
    mixes[r] = factor * DotFloat(row.data(), streams, width);
  }
}

void ReferenceBackend::HyperPre(const Tensor& streams, const HyperParameters& parameters,
                                Tensor& input, Tensor& post, Tensor& comb) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  input.Reshape({rows, d});
  post.Reshape({rows, n});
  comb.Reshape({rows, n, n});
  const Vector &base = parameters.base, &scale = parameters.scale;
  std::vector<float> u(static_cast<size_t>((2 + n) * n)), pre(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row) {
    HyperMix(streams.Row(row), n * d, parameters, u.data());
    for (int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<size_t>(j);
      pre[at] = Sigmoid(std::fma(u[at], scale[0], base[j])) + parameters.eps;
      post.Row(row)[j] =
          2.0f * Sigmoid(std::fma(u[static_cast<size_t>(n + j)], scale[1], base[n + j]));
    }
    float* a = comb.Row(row);
    for (int64_t i = 0; i < n * n; ++i) {
      a[i] = std::fma(u[static_cast<size_t>(2 * n + i)], scale[2], base[2 * n + i]);
    }
    Sinkhorn(a, n, parameters.sinkhorn_iterations, parameters.eps);
    WeightedStreams(streams.Row(row), pre.data(), n, d, input.Row(row));
    for (int64_t i = 0; i < d; ++i) input.Row(row)[i] = Round(input.Row(row)[i]);
  }
}

void ReferenceBackend::HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                                 Tensor& streams) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  std::vector<float> old(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < d; ++i) {
      float* x = streams.Row(row) + i;
      for (int64_t j = 0; j < n; ++j) old[static_cast<size_t>(j)] = x[j * d];
      for (int64_t k = 0; k < n; ++k) {
        float sum = 0;
        for (int64_t j = 0; j < n; ++j) {
          sum = std::fma(comb.Row(row)[j * n + k], old[static_cast<size_t>(j)], sum);
        }
        x[k * d] = Round(std::fma(post.Row(row)[k], y.Row(row)[i], sum));
      }
    }
  }
}

void ReferenceBackend::HyperHead(const Tensor& streams, const HyperParameters& parameters,
                                 Tensor& output) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  output.Reshape({rows, d});
  std::vector<float> pre(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row) {
    HyperMix(streams.Row(row), n * d, parameters, pre.data());
    for (int64_t j = 0; j < n; ++j) {
      float& p = pre[static_cast<size_t>(j)];
      p = Sigmoid(std::fma(p, parameters.scale[0], parameters.base[j])) + parameters.eps;
    }
    WeightedStreams(streams.Row(row), pre.data(), n, d, output.Row(row));
    for (int64_t i = 0; i < d; ++i) output.Row(row)[i] = Round(output.Row(row)[i]);
  }
}

}  // namespace toaster
