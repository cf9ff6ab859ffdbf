#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"

namespace toaster {

void ReferenceBackend::RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) {
  output.ReshapeLike(x);
  for (int64_t begin = 0; begin < x.size(); begin += weight.size) {
    NormaliseRow(x.data() + begin, weight, eps, official(), output.data() + begin);
  }
}

}  // namespace toaster
