// Backward of the hyper-connections, section 5.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/row_gradients.h"
#include "tensor/summation.h"

namespace toaster {

// As in the reference, with the products of all tokens together: u = factor (fn v) forward, then
// fn's gradient (factor grad_u)^T v and v's gradient (factor grad_u) fn. All in floats.
void CpuBackward::HyperBackward(const Tensor& streams, const HyperParameters& parameters, bool head,
                                const Tensor& grad_read, const Tensor* grad_post,
                                const Tensor* grad_comb, const HyperGradients& gradients,
                                Tensor& grad_streams) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2),
                width = n * d;
  const int64_t mixes = parameters.fn.rows, scales = head ? 1 : 3;
  mixes_.Reshape({rows, mixes});
  PackRows(streams.data(), rows, width, width, false, false, a_);
  PackWeight(parameters.fn, 0, mixes, false, b_);
  Multiply(a_, b_, mixes_.data(), mixes);
  // Per row: the gradients of base and scale.
  partial_.Reshape({rows, mixes + scales});
  ForRows(rows, 4, [&](int64_t row) {
    const float* v = streams.Row(row);
    float *u = mixes_.Row(row), *sums = partial_.Row(row), *to = grad_streams.Row(row);
    const float mean = DotFloat(v, v, width) / static_cast<float>(width);
    const float factor = 1.0f / std::sqrt(mean + parameters.norm_eps);
    for (int64_t r = 0; r < mixes; ++r) u[r] *= factor;
    std::vector<float> pre(static_cast<size_t>(n)), grad_pre(pre),
        grad_u(static_cast<size_t>(mixes));
    if (head) {
      HyperHeadCoefficients(u, parameters, n, pre.data());
    } else {
      std::vector<float> post(pre), comb(static_cast<size_t>(n * n));
      HyperCoefficients(u, parameters, n, pre.data(), post.data(), comb.data());
    }
    const float* g = grad_read.Row(row);
    for (int64_t j = 0; j < n; ++j) {
      grad_pre[static_cast<size_t>(j)] = DotFloat(v + j * d, g, d);
      for (int64_t i = 0; i < d; ++i)
        to[j * d + i] = std::fma(pre[static_cast<size_t>(j)], g[i], to[j * d + i]);
    }
    std::fill_n(sums, mixes + scales, 0.0f);
    if (head) {
      HyperHeadCoefficientsBackward(u, parameters, n, grad_pre.data(), grad_u.data(), sums,
                                    sums + mixes);
    } else {
      HyperCoefficientsBackward(u, parameters, n, grad_pre.data(), grad_post->Row(row),
                                grad_comb->Row(row), grad_u.data(), sums, sums + mixes);
    }
    float dot = 0;
    for (int64_t r = 0; r < mixes; ++r) {
      dot = std::fma(grad_u[static_cast<size_t>(r)], u[r], dot);
      u[r] = grad_u[static_cast<size_t>(r)] * factor;
    }
    const float shrink = dot * factor * factor / static_cast<float>(width);
    for (int64_t i = 0; i < width; ++i) to[i] = std::fma(-shrink, v[i], to[i]);
  });
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t r = 0; r < mixes; ++r) gradients.base[r] += partial_.Row(row)[r];
    for (int64_t s = 0; s < scales; ++s) gradients.scale[s] += partial_.Row(row)[mixes + s];
  }
  Product(streams.data(), width, false, parameters.fn, 0, mixes, mixes_.data(), mixes, rows, false,
          gradients.fn, grad_streams.data(), width);
}

void CpuBackward::HyperPre(const Tensor& streams, const HyperParameters& parameters,
                           const Tensor& grad_input, const Tensor& grad_post,
                           const Tensor& grad_comb, const HyperGradients& gradients,
                           Tensor& grad_streams) {
  HyperBackward(streams, parameters, false, grad_input, &grad_post, &grad_comb, gradients,
                grad_streams);
}

void CpuBackward::HyperHead(const Tensor& streams, const HyperParameters& parameters,
                            const Tensor& grad_output, const HyperGradients& gradients,
                            Tensor& grad_streams) {
  grad_streams.Reshape({streams.extent(0), streams.extent(1), streams.extent(2)});
  grad_streams.Fill(0);
  HyperBackward(streams, parameters, true, grad_output, nullptr, nullptr, gradients, grad_streams);
}

void CpuBackward::HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                            const Tensor& streams, Tensor& grad_streams, Tensor& grad_y,
                            Tensor& grad_post, Tensor& grad_comb) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  grad_y.Reshape({rows, d});
  grad_post.Reshape({rows, n});
  grad_comb.Reshape({rows, n, n});
  pool_.ParallelFor(rows, 4, [&](int64_t begin, int64_t end, int thread) {
    AlignedArray<float>& grad = scratch_[static_cast<size_t>(thread)].tile;
    grad.Resize(n * d);
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(grad_streams.Row(row), n * d, grad.data());
      float *to_y = grad_y.Row(row), *to_streams = grad_streams.Row(row);
      std::fill_n(to_y, d, 0.0f);
      std::fill_n(to_streams, n * d, 0.0f);
      for (int64_t k = 0; k < n; ++k) {
        const float* g = grad.data() + k * d;
        grad_post.Row(row)[k] = DotFloat(y.Row(row), g, d);
        const float p = post.Row(row)[k];
        for (int64_t i = 0; i < d; ++i) to_y[i] = std::fma(p, g[i], to_y[i]);
        for (int64_t j = 0; j < n; ++j) {
          const float c = comb.Row(row)[j * n + k];
          grad_comb.Row(row)[j * n + k] = DotFloat(streams.Row(row) + j * d, g, d);
          float* to = to_streams + j * d;
          for (int64_t i = 0; i < d; ++i) to[i] = std::fma(c, g[i], to[i]);
        }
      }
    }
  });
}

}  // namespace toaster
