#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"

namespace toaster {

void CpuBackend::RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) {
  output.ReshapeLike(x);
  const int64_t n = weight.size;
  pool_.ParallelFor(x.size() / n, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t run = begin; run < end; ++run) {
      NormaliseRow(x.data() + run * n, weight, eps, official(), output.data() + run * n);
    }
  });
}

}  // namespace toaster
