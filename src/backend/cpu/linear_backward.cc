// Backward of the matrix products and of the loss at the head.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "tensor/block_quantization.h"
#include "tensor/elementary.h"

namespace toaster {

namespace {

int64_t Padded(int64_t n) { return (n + 31) / 32 * 32; }

}  // namespace

CpuBackward::CpuBackward(Numerics numerics, int threads, const kernels::KernelTable& kernels)
    : BackwardBackend(numerics),
      kernels_(kernels),
      pool_(threads),
      scratch_(static_cast<size_t>(threads)) {}

void CpuBackward::Operand::Resize(int64_t row_count, int64_t width, bool use_bf16) {
  rows = row_count;
  inner = width;
  stride = Padded(width);
  bf16 = use_bf16;
  if (bf16) {
    words.Resize(rows * stride);
  } else {
    floats.Resize(rows * stride);
  }
}

void CpuBackward::ForRows(int64_t rows, int64_t grain, const std::function<void(int64_t)>& body) {
  pool_.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

void CpuBackward::PackRows(const float* x, int64_t rows, int64_t inner, int64_t x_stride, bool bf16,
                           bool quantise, Operand& operand) {
  operand.Resize(rows, inner, bf16);
  ForRows(rows, 16, [&](int64_t row) {
    const float* from = x + row * x_stride;
    if (!bf16) {
      float* to = operand.floats.data() + row * operand.stride;
      std::copy_n(from, inner, to);
      std::fill(to + inner, to + operand.stride, 0.0f);
    } else if (quantise) {
      kernels_.quantize_e4m3(from, inner, operand.words.data() + row * operand.stride);
    } else {
      kernels_.round_bf16(from, inner, operand.words.data() + row * operand.stride);
    }
  });
}

void CpuBackward::PackColumns(const float* x, int64_t rows, int64_t columns, int64_t x_stride,
                              bool bf16, Operand& operand) {
  constexpr int64_t kBlock = 32;  // columns, and rows, turned at a time
  operand.Resize(columns, rows, bf16);
  pool_.ParallelFor(columns, kBlock, [&](int64_t begin, int64_t end, int) {
    for (int64_t top = 0; top < operand.stride; top += kBlock) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t r = top; r < top + kBlock; ++r) {
          const float value = r < rows ? x[r * x_stride + c] : 0.0f;
          const int64_t at = c * operand.stride + r;
          if (bf16) {
            operand.words[at] = FloatToBf16(value);
          } else {
            operand.floats[at] = value;
          }
        }
      }
    }
  });
}

void CpuBackward::PackWeight(const Matrix& weight, int64_t first, int64_t count, bool bf16,
                             bool transposed, Operand& operand) {
  constexpr int64_t kBlock = 32;
  const int64_t columns = weight.columns;
  if (transposed) {
    operand.Resize(columns, count, bf16);
  } else {
    operand.Resize(count, columns, bf16);
  }
  pool_.ParallelFor(Padded(count), kBlock, [&](int64_t begin, int64_t end, int thread) {
    AlignedArray<float>& tile = scratch_[static_cast<size_t>(thread)].tile;
    tile.Resize(kBlock * columns);
    for (int64_t top = begin; top < end; top += kBlock) {
      for (int64_t r = 0; r < kBlock; ++r) {
        float* row = tile.data() + r * columns;
        if (top + r < count) {
          ExpandRow(weight, first + top + r, row);
        } else {
          std::fill_n(row, columns, 0.0f);
        }
      }
      if (transposed) {
        for (int64_t c = 0; c < columns; ++c) {
          for (int64_t r = 0; r < kBlock; ++r) {
            const int64_t at = c * operand.stride + top + r;
            if (bf16) {
              operand.words[at] = FloatToBf16(tile[r * columns + c]);
            } else {
              operand.floats[at] = tile[r * columns + c];
            }
          }
        }
        continue;
      }
      for (int64_t r = 0; r < kBlock && top + r < count; ++r) {
        const int64_t at = (top + r) * operand.stride;
        if (bf16) {
          kernels_.round_bf16(tile.data() + r * columns, columns, operand.words.data() + at);
        } else {
          std::copy_n(tile.data() + r * columns, columns, operand.floats.data() + at);
          std::fill_n(operand.floats.data() + at + columns, operand.stride - columns, 0.0f);
        }
      }
    }
  });
}

void CpuBackward::Multiply(const Operand& a, const Operand& b, float* c, int64_t c_stride,
                           bool add) {
  CHECK(a.inner == b.inner && a.bf16 == b.bf16, "{} and {}", a.inner, b.inner);
  constexpr int64_t kRows = 256, kColumns = 128;  // of a piece of the result
  const int64_t down = (a.rows + kRows - 1) / kRows, across = (b.rows + kColumns - 1) / kColumns;
  pool_.ParallelFor(down * across, 1, [&](int64_t begin, int64_t end, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    scratch.matmul.Resize(kernels::MatmulScratchBytes(a.inner));
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t top = piece / across * kRows, left = piece % across * kColumns;
      const int64_t rows = std::min(kRows, a.rows - top),
                    columns = std::min(kColumns, b.rows - left);
      kernels::WeightRows w;
      w.rows = columns;
      w.inner = a.inner;
      w.row_bytes = b.stride * (b.bf16 ? 2 : 4);
      w.data = b.bf16 ? reinterpret_cast<const uint8_t*>(b.words.data() + left * b.stride)
                      : reinterpret_cast<const uint8_t*>(b.floats.data() + left * b.stride);
      float* out = c + top * c_stride + left;
      int64_t out_stride = c_stride;
      if (add) {
        scratch.tile.Resize(kRows * kColumns);
        out = scratch.tile.data();
        out_stride = kColumns;
      }
      if (a.bf16) {
        kernels_.matmul_bf16(w, a.words.data() + top * a.stride, a.stride, rows, out, out_stride,
                             scratch.matmul.data());
      } else {
        kernels_.matmul_f32(w, a.floats.data() + top * a.stride, a.stride, rows, out, out_stride,
                            scratch.matmul.data());
      }
      for (int64_t r = 0; add && r < rows; ++r) {
        float* to = c + (top + r) * c_stride + left;
        for (int64_t i = 0; i < columns; ++i) to[i] += out[r * kColumns + i];
      }
    }
  });
}

void CpuBackward::Product(const float* x, int64_t x_stride, bool quantise, const Matrix& weight,
                          int64_t first, int64_t count, const float* grad_y, int64_t y_stride,
                          int64_t tokens, bool bf16, float* grad_weight, float* grad_x,
                          int64_t grad_x_stride) {
  if (tokens == 0) return;
  const int64_t inputs = weight.columns;
  if (grad_x != nullptr) {
    PackRows(grad_y, tokens, count, y_stride, bf16, false, a_);
    PackWeight(weight, first, count, bf16, true, b_);
    Multiply(a_, b_, grad_x, grad_x_stride, true);
  }
  if (grad_weight == nullptr) return;
  if (quantise) {  // as the weight saw it, then turned
    products_.Reshape({tokens, inputs});
    ForRows(tokens, 16,
            [&](int64_t t) { QuantizeE4m3(x + t * x_stride, inputs, 128, products_.Row(t)); });
    PackColumns(products_.data(), tokens, inputs, inputs, bf16, b_);
  } else {
    PackColumns(x, tokens, inputs, x_stride, bf16, b_);
  }
  PackColumns(grad_y, tokens, count, y_stride, bf16, a_);
  Multiply(a_, b_, grad_weight, inputs, true);
}

void CpuBackward::Linear(const Tensor& x, std::span<const ProjectionGradient> projections,
                         Tensor* grad_x) {
  for (const ProjectionGradient& projection : projections) {
    const Matrix& weight = *projection.weight;
    Product(x.data(), x.width(), Quantises(weight), weight, 0, weight.rows,
            projection.grad_output->data(), weight.rows, x.rows(), official(),
            projection.grad_weight, grad_x == nullptr ? nullptr : grad_x->data(), weight.columns);
  }
}

void CpuBackward::GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                                const Tensor& grad_output, float* grad_weight, Tensor& grad_x) {
  const int64_t k = weight.columns, rank = weight.rows / groups;
  grad_x.Reshape({x.rows(), groups * k});
  grad_x.Fill(0);
  for (int64_t group = 0; group < groups; ++group) {
    Product(x.data() + group * k, groups * k, false, weight, group * rank, rank,
            grad_output.data() + group * rank, weight.rows, x.rows(), official(),
            grad_weight + group * rank * k, grad_x.data() + group * k, groups * k);
  }
}

void CpuBackward::MultiplyTransposed(const float* a, int64_t n, const float* b, int64_t m,
                                     int64_t inner, float* c) {
  PackRows(a, n, inner, inner, false, false, a_);
  PackRows(b, m, inner, inner, false, false, b_);
  Multiply(a_, b_, c, m, false);
}

double CpuBackward::CrossEntropy(const Tensor& x, const Matrix& head,
                                 std::span<const int32_t> targets, float weight, float* grad_head,
                                 Tensor& grad_x) {
  constexpr int64_t kRows = 256;  // whose logits live at a time
  const int64_t d = head.columns, vocabulary = head.rows;
  grad_x.Reshape({x.rows(), d});
  grad_x.Fill(0);
  // Rows without a target cost nothing.
  std::vector<int64_t> counted;
  for (size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] >= 0) counted.push_back(static_cast<int64_t>(row));
  }
  const auto total_rows = static_cast<int64_t>(counted.size());
  Tensor part({kRows, d}), grad({kRows, d});
  std::vector<double> losses(counted.size());
  PackWeight(head, 0, vocabulary, official(), false, c_);
  for (int64_t begin = 0; begin < total_rows; begin += kRows) {
    const int64_t rows = std::min(kRows, total_rows - begin);
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(x.Row(counted[static_cast<size_t>(begin + i)]), d, part.Row(i));
    logits_.Reshape({rows, vocabulary});
    PackRows(part.data(), rows, d, d, official(), false, a_);
    Multiply(a_, c_, logits_.data(), vocabulary, false);
    ForRows(rows, 4, [&](int64_t i) {
      const auto at = static_cast<size_t>(begin + i);
      const int32_t target = targets[static_cast<size_t>(counted[at])];
      float* row = logits_.Row(i);
      const float maximum = *std::max_element(row, row + vocabulary);
      const float logit = row[target];
      double total = 0;
      for (int64_t v = 0; v < vocabulary; ++v) total += row[v] = Exp(row[v] - maximum);
      losses[at] = std::log(total) + maximum - logit;
      const auto factor = static_cast<float>(weight / total);
      for (int64_t v = 0; v < vocabulary; ++v) row[v] *= factor;
      row[target] -= weight;
    });
    for (int64_t i = 0; i < rows; ++i) std::fill_n(grad.Row(i), d, 0.0f);
    Product(part.data(), d, false, head, 0, vocabulary, logits_.data(), vocabulary, rows,
            official(), grad_head, grad.data(), d);
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(grad.Row(i), d, grad_x.Row(counted[static_cast<size_t>(begin + i)]));
  }
  double loss = 0;
  for (const double one : losses) loss += one;
  return loss;
}

}  // namespace toaster
