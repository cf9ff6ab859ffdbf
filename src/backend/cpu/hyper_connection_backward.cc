// Backward of the hyper-connections, section 5.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/hyper_coefficients.h"
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
  PackRows(streams.data(), rows, width, width, false, false, inputs_);
  PackWeight(parameters.fn, 0, mixes, false, b_);
  Multiply(inputs_, b_, mixes_.data(), mixes);
  // Per row: the gradients of base and scale.
  partial_.Reshape({rows, mixes + scales});
  pool_.ParallelFor(rows, 8, [&](int64_t begin, int64_t end, int thread) {
    const int64_t count = end - begin;
    AlignedArray<float>& work = scratch_[static_cast<size_t>(thread)].tile;
    work.Resize(count * (1 + n + mixes) + n);
    float *factors = work.data(), *grad_pre = factors + count, *grad_u = grad_pre + count * n,
          *pre = grad_u + count * mixes;
    for (int64_t i = 0; i < count; ++i) {
      const float *v = streams.Row(begin + i), *g = grad_read.Row(begin + i);
      float *u = mixes_.Row(begin + i), *to = grad_streams.Row(begin + i);
      const float mean = DotFloat(v, v, width) / static_cast<float>(width);
      factors[i] = 1.0f / std::sqrt(mean + parameters.norm_eps);
      for (int64_t r = 0; r < mixes; ++r) u[r] *= factors[i];
      HyperReadCoefficients(u, parameters, n, pre);
      for (int64_t j = 0; j < n; ++j) {
        grad_pre[i * n + j] = DotFloat(v + j * d, g, d);
        for (int64_t c = 0; c < d; ++c) to[j * d + c] = std::fma(pre[j], g[c], to[j * d + c]);
      }
      if (head) HyperReadCoefficientsBackward(u, parameters, n, grad_pre + i * n, grad_u + i * n);
    }
    if (!head) {
      HyperCoefficientsBackward(mixes_.Row(begin), count, parameters, n, grad_pre,
                                grad_post->Row(begin), grad_comb->Row(begin), grad_u);
    }
    for (int64_t i = 0; i < count; ++i) {
      const float *v = streams.Row(begin + i), factor = factors[i];
      float *u = mixes_.Row(begin + i), *to = grad_streams.Row(begin + i), *g = grad_u + i * mixes;
      float* sums = partial_.Row(begin + i);
      std::fill_n(sums, mixes + scales, 0.0f);
      HyperLogitsBackward(u, parameters, n, head, g, sums, sums + mixes);
      float dot = 0;
      for (int64_t r = 0; r < mixes; ++r) {
        dot = std::fma(g[r], u[r], dot);
        u[r] = g[r] * factor;
      }
      const float shrink = dot * factor * factor / static_cast<float>(width);
      for (int64_t c = 0; c < width; ++c) to[c] = std::fma(-shrink, v[c], to[c]);
    }
  });
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t r = 0; r < mixes; ++r) gradients.base[r] += partial_.Row(row)[r];
    for (int64_t s = 0; s < scales; ++s) gradients.scale[s] += partial_.Row(row)[mixes + s];
  }
  Product(inputs_, parameters.fn, 0, mixes, mixes_.data(), mixes, gradients.fn, grad_streams.data(),
          width, true);
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
