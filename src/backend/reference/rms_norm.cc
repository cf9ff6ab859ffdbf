#include <cmath>

#include "backend/reference/reference_backend.h"
#include "tensor/summation.h"

namespace toaster {

void ReferenceBackend::NormaliseRow(const float* x, const Vector& weight, float eps,
                                    float* output) const {
  const int64_t n = weight.size;
  const float mean = DotFloat(x, x, n) / static_cast<float>(n);
  const float factor = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) output[i] = Round(x[i] * factor * weight[i]);
}

void ReferenceBackend::RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) {
  if (&output != &x) output.CopyFrom(x);
  for (int64_t begin = 0; begin < x.size(); begin += weight.size) {
    NormaliseRow(output.data() + begin, weight, eps, output.data() + begin);
  }
}

}  // namespace toaster
