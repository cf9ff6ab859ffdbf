// Manifold-constrained hyper-connections, section 5.

#include <cmath>
#include <vector>

#include "backend/hyper_coefficients.h"
#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
#include "tensor/summation.h"

namespace toaster {

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
  std::vector<float> u(static_cast<size_t>((2 + n) * n)), pre(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row) {
    HyperMix(streams.Row(row), n * d, parameters, u.data());
    HyperCoefficients(u.data(), 1, parameters, n, pre.data(), post.Row(row), comb.Row(row));
    ReadStreams(streams.Row(row), pre.data(), n, d, official(), input.Row(row));
  }
}

void ReferenceBackend::HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                                 const Tensor& streams, Tensor& output) {
  const int64_t n = streams.extent(1), d = streams.extent(2);
  output.ReshapeLike(streams);
  for (int64_t row = 0; row < streams.rows(); ++row) {
    WriteStreams(y.Row(row), post.Row(row), comb.Row(row), streams.Row(row), n, d, official(),
                 output.Row(row));
  }
}

void ReferenceBackend::HyperHead(const Tensor& streams, const HyperParameters& parameters,
                                 Tensor& output) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  output.Reshape({rows, d});
  std::vector<float> u(static_cast<size_t>(n)), pre(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row) {
    HyperMix(streams.Row(row), n * d, parameters, u.data());
    HyperReadCoefficients(u.data(), parameters, n, pre.data());
    ReadStreams(streams.Row(row), pre.data(), n, d, official(), output.Row(row));
  }
}

}  // namespace toaster
