// The Newton-Schulz iteration of the Muon optimiser.
//
// A matrix stands upright, y [m, n] with m >= n, so that all products run along rows as they are:
// the Gram matrix y^T y, its square, and y times a polynomial of it. Of the symmetric ones the
// lower half is computed and mirrored.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/newton_schulz.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kBand = 24;  // rows of a piece of a symmetric product
constexpr int64_t kRows = 48;  // rows of a piece of y

// Copies what lies below the diagonal above it: rows [top, top + 32) of the source.
template <typename Number>
void Mirror(Number* x, int64_t n, int64_t stride, int64_t top) {
  constexpr int64_t kBlock = 32;
  const int64_t bottom = std::min(top + kBlock, n);
  for (int64_t left = 0; left <= top; left += kBlock) {
    for (int64_t c = left; c < std::min(left + kBlock, bottom); ++c) {
      for (int64_t r = std::max(top, c + 1); r < bottom; ++r) x[c * stride + r] = x[r * stride + c];
    }
  }
}

double Cost(const MatrixSpan& matrix) {
  return static_cast<double>(matrix.rows * matrix.columns) *
         static_cast<double>(std::min(matrix.rows, matrix.columns));
}

}  // namespace

void CpuBackward::OrthogonaliseOne(const MatrixSpan& matrix, bool together, NewtonSchulz& work) {
  const auto each = [&](int64_t count, int64_t step, const std::function<void(int64_t)>& body) {
    const int64_t pieces = (count + step - 1) / step;
    if (together) return ForRows(pieces, 1, [&](int64_t i) { body(i * step); });
    for (int64_t i = 0; i < pieces; ++i) body(i * step);
  };
  const bool wide = matrix.rows < matrix.columns, bf16 = official();
  const int64_t m = std::max(matrix.rows, matrix.columns),
                n = std::min(matrix.rows, matrix.columns);
  work.operand.Resize(m, n, bf16);
  const int64_t stride = work.operand.stride;
  Tensor &y = work.y, &gram = work.gram, &square = work.square;
  y.Reshape({m, stride});
  gram.Reshape({n, stride});
  square.Reshape({n, stride});
  const auto pack = [&](const float* from, int64_t row, Operand& operand) {
    if (bf16) {
      kernels_.round_bf16(from, n, operand.own_words.data() + row * stride);
    } else {
      float* to = operand.own_floats.data() + row * stride;
      std::copy_n(from, n, to);
      std::fill(to + n, to + stride, 0.0f);
    }
  };
  // The lower half of p v, which is symmetric.
  const auto half = [&](const Operand& p, bool turned, const Operand& v, Tensor& result) {
    each(n, kBand, [&](int64_t top) {
      const int64_t rows = std::min(kBand, n - top),
                    columns = std::min((top + rows + 31) / 32 * 32, stride);
      for (int64_t r = top; r < top + rows; ++r) std::fill_n(result.Row(r), columns, 0.0f);
      AccumulatePiece(p, turned, v, top, rows, 0, columns, result.Row(top), stride);
    });
  };
  const auto pack_symmetric = [&](const Tensor& lower) {
    Operand& operand = work.symmetric;
    operand.Resize(n, n, bf16);
    each(n, 32, [&](int64_t top) {
      for (int64_t r = top; r < std::min(top + 32, n); ++r) pack(lower.Row(r), r, operand);
    });
    each(n, 32, [&](int64_t top) {
      if (bf16) {
        Mirror(operand.own_words.data(), n, stride, top);
      } else {
        Mirror(operand.own_floats.data(), n, stride, top);
      }
    });
  };

  std::vector<float> squares(static_cast<size_t>(m));
  each(m, 16, [&](int64_t top) {
    const int64_t bottom = std::min(top + 16, m);
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t r = top; r < bottom; ++r)
        y.Row(r)[c] = wide ? matrix.x[c * m + r] : matrix.x[r * n + c];
    }
    for (int64_t r = top; r < bottom; ++r) {
      std::fill_n(y.Row(r) + n, stride - n, 0.0f);
      squares[static_cast<size_t>(r)] = DotFloat(y.Row(r), y.Row(r), n);
    }
  });
  const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
  if (sum == 0) return;
  const auto factor = static_cast<float>(1.0 / std::sqrt(sum));
  for (int step = 0; step < kNewtonSchulzSteps; ++step) {
    // y <- a y + y (b g + c g^2) with g = y^T y.
    const NewtonSchulzStep factors = NewtonSchulzCoefficients(step);
    each(m, 16, [&](int64_t top) {
      for (int64_t r = top; r < std::min(top + 16, m); ++r) {
        float* row = y.Row(r);
        for (int64_t i = 0; step == 0 && i < n; ++i) row[i] *= factor;
        pack(row, r, work.operand);
      }
    });
    half(work.operand, true, work.operand, gram);
    pack_symmetric(gram);
    half(work.symmetric, false, work.symmetric, square);
    each(n, 32, [&](int64_t top) {
      const float b = factors.b, c = factors.c;
      for (int64_t r = top; r < std::min(top + 32, n); ++r) {
        const float* g = gram.Row(r);
        float* s = square.Row(r);
        for (int64_t i = 0; i <= r; ++i) s[i] = b * g[i] + c * s[i];
      }
    });
    pack_symmetric(square);
    each(m, kRows, [&](int64_t top) {
      const int64_t rows = std::min(kRows, m - top);
      const float a = factors.a;
      float* to = y.Row(top);
      for (int64_t i = 0; i < rows * stride; ++i) to[i] *= a;
      AccumulatePiece(work.operand, false, work.symmetric, top, rows, 0, stride, to, stride);
    });
  }
  each(m, 16, [&](int64_t top) {
    const int64_t bottom = std::min(top + 16, m);
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t r = top; r < bottom; ++r)
        (wide ? matrix.x[c * m + r] : matrix.x[r * n + c]) = y.Row(r)[c];
    }
  });
}

void CpuBackward::Orthogonalise(std::span<const MatrixSpan> matrices) {
  double total = 0;
  for (const MatrixSpan& matrix : matrices) total += Cost(matrix);
  // A matrix that would keep one thread busy after the others are done is shared by all; of the
  // rest each thread takes one after the other, the largest first. The result is the same.
  std::vector<MatrixSpan> alone;
  for (const MatrixSpan& matrix : matrices) {
    if (pool_.threads() > 1 && 4 * pool_.threads() * Cost(matrix) > total) {
      OrthogonaliseOne(matrix, true, newton_schulz_[0]);
    } else {
      alone.push_back(matrix);
    }
  }
  std::stable_sort(alone.begin(), alone.end(),
                   [](const MatrixSpan& a, const MatrixSpan& b) { return Cost(a) > Cost(b); });
  pool_.ParallelFor(static_cast<int64_t>(alone.size()), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      for (int64_t i = begin; i < end; ++i) {
                        OrthogonaliseOne(alone[static_cast<size_t>(i)], false,
                                         newton_schulz_[static_cast<size_t>(thread)]);
                      }
                    });
}

void CpuBackward::ForEach(int64_t count, const std::function<void(int64_t)>& body) {
  ForRows(count, 1, body);
}

}  // namespace toaster
