// Backward of the hyper-connections, section 5.

#include <cmath>
#include <vector>

#include "backend/hyper_coefficients.h"
#include "backend/reference/reference_backward.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

// One token's products u = factor * (fn . v) of section 5.1, and the way back.
class Mix {
 public:
  Mix(const float* v, int64_t width, const HyperParameters& parameters)
      : v_(v), width_(width), fn_(parameters.fn), row_(static_cast<size_t>(width)) {
    const float mean = DotFloat(v, v, width) / static_cast<float>(width);
    factor_ = 1.0f / std::sqrt(mean + parameters.norm_eps);
    for (int64_t r = 0; r < fn_.rows; ++r) {
      ExpandRow(fn_, r, row_.data());
      u.push_back(factor_ * DotFloat(row_.data(), v, width));
    }
  }

  // The factor depends on v too: its part is -v factor^2 mean(grad_u u) over v's numbers.
  void Backward(const std::vector<float>& grad_u, float* grad_fn, float* grad_v) {
    float dot = 0;
    for (size_t r = 0; r < grad_u.size(); ++r) {
      dot = std::fma(grad_u[r], u[r], dot);
      ExpandRow(fn_, static_cast<int64_t>(r), row_.data());
      const float g = grad_u[r] * factor_;
      float* to = grad_fn + static_cast<int64_t>(r) * width_;
      for (int64_t i = 0; i < width_; ++i) {
        to[i] = std::fma(g, v_[i], to[i]);
        grad_v[i] = std::fma(g, row_[static_cast<size_t>(i)], grad_v[i]);
      }
    }
    const float shrink = dot * factor_ * factor_ / static_cast<float>(width_);
    for (int64_t i = 0; i < width_; ++i) grad_v[i] = std::fma(-shrink, v_[i], grad_v[i]);
  }

  std::vector<float> u;

 private:
  const float* v_;
  int64_t width_;
  const Matrix& fn_;
  std::vector<float> row_;
  float factor_ = 0;
};

// y = sum over j of pre[j] * streams[j]: adds to grad_streams and gives the gradient of pre.
std::vector<float> ReadBackward(const float* streams, const std::vector<float>& pre, int64_t d,
                                const float* grad_y, float* grad_streams) {
  std::vector<float> grad_pre;
  for (size_t j = 0; j < pre.size(); ++j) {
    const int64_t at = static_cast<int64_t>(j) * d;
    grad_pre.push_back(DotFloat(streams + at, grad_y, d));
    for (int64_t i = 0; i < d; ++i)
      grad_streams[at + i] = std::fma(pre[j], grad_y[i], grad_streams[at + i]);
  }
  return grad_pre;
}

}  // namespace

void ReferenceBackward::HyperPre(const Tensor& streams, const HyperParameters& parameters,
                                 const Tensor& grad_input, const Tensor& grad_post,
                                 const Tensor& grad_comb, const HyperGradients& gradients,
                                 Tensor& grad_streams) {
  const int64_t n = streams.extent(1), d = streams.extent(2);
  std::vector<float> pre(static_cast<size_t>(n)), grad_u(static_cast<size_t>((2 + n) * n));
  for (int64_t row = 0; row < streams.rows(); ++row) {
    Mix mix(streams.Row(row), n * d, parameters);
    HyperReadCoefficients(mix.u.data(), parameters, n, pre.data());
    const std::vector<float> grad_pre =
        ReadBackward(streams.Row(row), pre, d, grad_input.Row(row), grad_streams.Row(row));
    HyperCoefficientsBackward(mix.u.data(), 1, parameters, n, grad_pre.data(), grad_post.Row(row),
                              grad_comb.Row(row), grad_u.data());
    HyperLogitsBackward(mix.u.data(), parameters, n, false, grad_u.data(), gradients.base,
                        gradients.scale);
    mix.Backward(grad_u, gradients.fn, grad_streams.Row(row));
  }
}

void ReferenceBackward::HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                                  const Tensor& streams, Tensor& grad_streams, Tensor& grad_y,
                                  Tensor& grad_post, Tensor& grad_comb) {
  const int64_t rows = streams.extent(0), n = streams.extent(1), d = streams.extent(2);
  grad_y.Reshape({rows, d});
  grad_post.Reshape({rows, n});
  grad_comb.Reshape({rows, n, n});
  std::vector<float> grad(static_cast<size_t>(n * d));
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(grad_streams.Row(row), n * d, grad.data());
    float *to_y = grad_y.Row(row), *to_streams = grad_streams.Row(row);
    std::fill_n(to_y, d, 0.0f);
    std::fill_n(to_streams, n * d, 0.0f);
    for (int64_t k = 0; k < n; ++k) {
      const float* g = grad.data() + k * d;
      grad_post.Row(row)[k] = DotFloat(y.Row(row), g, d);
      for (int64_t i = 0; i < d; ++i) to_y[i] = std::fma(post.Row(row)[k], g[i], to_y[i]);
      for (int64_t j = 0; j < n; ++j) {
        const float c = comb.Row(row)[j * n + k];
        grad_comb.Row(row)[j * n + k] = DotFloat(streams.Row(row) + j * d, g, d);
        for (int64_t i = 0; i < d; ++i)
          to_streams[j * d + i] = std::fma(c, g[i], to_streams[j * d + i]);
      }
    }
  }
}

void ReferenceBackward::HyperHead(const Tensor& streams, const HyperParameters& parameters,
                                  const Tensor& grad_output, const HyperGradients& gradients,
                                  Tensor& grad_streams) {
  const int64_t n = streams.extent(1), d = streams.extent(2);
  grad_streams.Reshape({streams.extent(0), n, d});
  grad_streams.Fill(0);
  std::vector<float> pre(static_cast<size_t>(n)), grad_u(static_cast<size_t>(n));
  for (int64_t row = 0; row < streams.rows(); ++row) {
    Mix mix(streams.Row(row), n * d, parameters);
    HyperReadCoefficients(mix.u.data(), parameters, n, pre.data());
    const std::vector<float> grad_pre =
        ReadBackward(streams.Row(row), pre, d, grad_output.Row(row), grad_streams.Row(row));
    HyperReadCoefficientsBackward(mix.u.data(), parameters, n, grad_pre.data(), grad_u.data());
    HyperLogitsBackward(mix.u.data(), parameters, n, true, grad_u.data(), gradients.base,
                        gradients.scale);
    mix.Backward(grad_u, gradients.fn, grad_streams.Row(row));
  }
}

}  // namespace toaster
