// The Newton-Schulz iteration of the Muon optimiser.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/newton_schulz.h"
#include "backend/reference/reference_backward.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

std::vector<float> Transposed(const float* x, int64_t rows, int64_t columns) {
  std::vector<float> y(static_cast<size_t>(rows * columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) y[static_cast<size_t>(c * rows + r)] = x[r * columns + c];
  }
  return y;
}

// The product of a [n, inner] and b [m, inner], transposed.
std::vector<float> Multiply(const std::vector<float>& a, int64_t n, const std::vector<float>& b,
                            int64_t m, int64_t inner) {
  std::vector<float> c;
  c.reserve(static_cast<size_t>(n * m));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j)
      c.push_back(DotFloat(a.data() + i * inner, b.data() + j * inner, inner));
  }
  return c;
}

}  // namespace

void ReferenceBackward::Orthogonalise(std::span<const MatrixSpan> matrices) {
  for (const MatrixSpan& matrix : matrices) {
    // Tall matrices are turned, so that the Gram matrix is the small one.
    const bool tall = matrix.rows > matrix.columns;
    const int64_t n = std::min(matrix.rows, matrix.columns),
                  m = std::max(matrix.rows, matrix.columns);
    std::vector<float> x = tall ? Transposed(matrix.x, matrix.rows, matrix.columns)
                                : std::vector<float>(matrix.x, matrix.x + n * m);
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    if (squares == 0) continue;
    const auto factor = static_cast<float>(1.0 / std::sqrt(squares));
    for (float& v : x) v *= factor;
    for (int step = 0; step < kNewtonSchulzSteps; ++step) {
      const auto [a, b, c] = NewtonSchulzCoefficients(step);
      // x <- a x + (b s + c s^2) x with s = x x^T, which is symmetric.
      std::vector<float> s = Multiply(x, n, x, n, m);
      const std::vector<float> square = Multiply(s, n, s, n, n);
      for (size_t i = 0; i < s.size(); ++i) s[i] = b * s[i] + c * square[i];
      const std::vector<float> sum = Multiply(s, n, Transposed(x.data(), n, m), m, n);
      for (size_t i = 0; i < x.size(); ++i) x[i] = a * x[i] + sum[i];
    }
    if (tall) x = Transposed(x.data(), n, m);
    std::copy(x.begin(), x.end(), matrix.x);
  }
}

void ReferenceBackward::ForEach(int64_t count, const std::function<void(int64_t)>& body) {
  for (int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace toaster
