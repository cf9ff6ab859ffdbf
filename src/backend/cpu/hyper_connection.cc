// Manifold-constrained hyper-connections, section 5.

#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/hyper_coefficients.h"
#include "backend/row_operations.h"
#include "tensor/summation.h"

namespace toaster {

void CpuBackend::HyperMix(const Tensor& streams, const HyperParameters& parameters, Tensor& mixes) {
  constexpr int64_t kTokens = 16,
                    kMixes = 8;  // a piece of work: so many tokens by so many rows of fn
  const int64_t rows = streams.rows(), width = streams.width(), count = parameters.fn.rows;
  mixes.Reshape({rows, count});
  // Kernels want rows that are padded to a multiple of 32 numbers; nearly every model's are.
  const int64_t stride = (width + 31) / 32 * 32;
  const float* inputs = streams.data();
  if (stride != width) {
    padded_.Reshape({rows, stride});
    padded_.Fill(0);
    for (int64_t row = 0; row < rows; ++row) std::copy_n(streams.Row(row), width, padded_.Row(row));
    inputs = padded_.data();
  }
  const int64_t row_pieces = (count + kMixes - 1) / kMixes,
                token_pieces = (rows + kTokens - 1) / kTokens;
  pool_.ParallelFor(row_pieces * token_pieces, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t r = piece % row_pieces * kMixes, t = piece / row_pieces * kTokens;
      const kernels::WeightRows weights{parameters.fn.data + r * parameters.fn.row_bytes(),
                                        parameters.fn.row_bytes(), std::min(kMixes, count - r),
                                        width, nullptr};
      Scratch& scratch = scratch_[static_cast<size_t>(thread)];
      scratch.matmul.Resize(kernels::MatmulScratchBytes(width));
      kernels_.matmul_f32(weights, inputs + t * stride, stride, std::min(kTokens, rows - t),
                          mixes.Row(t) + r, count, scratch.matmul.data());
    }
  });
}

void CpuBackend::ScaleMixes(const float* streams, const HyperParameters& parameters, int64_t row) {
  const int64_t width = parameters.fn.columns;
  const float mean = DotFloat(streams, streams, width) / static_cast<float>(width);
  const float factor = 1.0f / std::sqrt(mean + parameters.norm_eps);
  float* u = mixes_.Row(row);
  for (int64_t i = 0; i < mixes_.width(); ++i) u[i] *= factor;
}

void CpuBackend::HyperPre(const Tensor& streams, const HyperParameters& parameters, Tensor& input,
                          Tensor& post, Tensor& comb) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  HyperMix(streams, parameters, mixes_);
  input.Reshape({rows, d});
  post.Reshape({rows, n});
  comb.Reshape({rows, n, n});
  pool_.ParallelFor(rows, 8, [&](int64_t begin, int64_t end, int) {
    std::vector<float> pre(static_cast<size_t>((end - begin) * n));
    for (int64_t row = begin; row < end; ++row) ScaleMixes(streams.Row(row), parameters, row);
    HyperCoefficients(mixes_.Row(begin), end - begin, parameters, n, pre.data(), post.Row(begin),
                      comb.Row(begin));
    for (int64_t row = begin; row < end; ++row) {
      ReadStreams(streams.Row(row), pre.data() + (row - begin) * n, n, d, official(),
                  input.Row(row));
    }
  });
}

void CpuBackend::HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                           const Tensor& streams, Tensor& output) {
  const int64_t n = streams.extent(1), d = streams.extent(2);
  output.ReshapeLike(streams);
  pool_.ParallelFor(streams.rows(), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      WriteStreams(y.Row(row), post.Row(row), comb.Row(row), streams.Row(row), n, d, official(),
                   output.Row(row));
    }
  });
}

void CpuBackend::HyperHead(const Tensor& streams, const HyperParameters& parameters,
                           Tensor& output) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  HyperMix(streams, parameters, mixes_);
  output.Reshape({rows, d});
  pool_.ParallelFor(rows, 4, [&](int64_t begin, int64_t end, int) {
    std::vector<float> pre(static_cast<size_t>(n));
    for (int64_t row = begin; row < end; ++row) {
      ScaleMixes(streams.Row(row), parameters, row);
      HyperReadCoefficients(mixes_.Row(row), parameters, n, pre.data());
      ReadStreams(streams.Row(row), pre.data(), n, d, official(), output.Row(row));
    }
  });
}

}  // namespace toaster
