// Backward of the matrix products and of the loss at the head.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "tensor/block_quantization.h"
#include "tensor/elementary.h"
#include "tensor/maximum.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

int64_t Padded(int64_t n) { return (n + 31) / 32 * 32; }

// As kernels want activations.
bool Aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 64 == 0; }

}  // namespace

CpuBackward::CpuBackward(Numerics numerics, int threads, const kernels::KernelTable& kernels)
    : BackwardBackend(numerics),
      kernels_(kernels),
      pool_(threads),
      scratch_(static_cast<size_t>(threads)),
      newton_schulz_(static_cast<size_t>(threads)) {}

void CpuBackward::Operand::Resize(int64_t row_count, int64_t width, bool use_bf16) {
  rows = row_count;
  inner = width;
  stride = Padded(width);
  bf16 = use_bf16;
  if (bf16) {
    // Slots come in pairs: a last row of zeros.
    own_words.Resize((rows + rows % 2) * stride);
    std::fill_n(own_words.data() + rows * stride, rows % 2 * stride, uint16_t{0});
    words = own_words.data();
  } else {
    own_floats.Resize(rows * stride);
    floats = own_floats.data();
  }
}

void CpuBackward::ForRows(int64_t rows, int64_t grain, const std::function<void(int64_t)>& body) {
  pool_.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

void CpuBackward::PackRows(const float* x, int64_t rows, int64_t inner, int64_t x_stride, bool bf16,
                           bool quantise, Operand& operand) {
  if (!bf16 && !quantise && inner % 32 == 0 && x_stride % 32 == 0 && Aligned(x)) {
    operand.rows = rows, operand.inner = inner, operand.stride = x_stride, operand.bf16 = false;
    operand.floats = x;
    return;
  }
  operand.Resize(rows, inner, bf16);
  ForRows(rows, 16, [&](int64_t row) {
    const float* from = x + row * x_stride;
    if (bf16) {
      const auto round = quantise ? kernels_.quantize_e4m3 : kernels_.round_bf16;
      round(from, inner, operand.own_words.data() + row * operand.stride);
    } else {
      float* floats = operand.own_floats.data() + row * operand.stride;
      if (quantise) {
        QuantizeE4m3(from, inner, 128, floats);
      } else {
        std::copy_n(from, inner, floats);
      }
      std::fill(floats + inner, floats + operand.stride, 0.0f);
    }
  });
}

void CpuBackward::PackWeight(const Matrix& weight, int64_t first, int64_t count, bool bf16,
                             Operand& operand) {
  const int64_t columns = weight.columns;
  const uint8_t* stored = weight.data + first * weight.row_bytes();
  if (bf16 && weight.format == NumberFormat::kBf16 && columns % 32 == 0 && count % 2 == 0 &&
      Aligned(stored)) {
    operand.rows = count, operand.inner = operand.stride = columns, operand.bf16 = true;
    operand.words = reinterpret_cast<const uint16_t*>(stored);
    return;
  }
  operand.Resize(count, columns, bf16);
  pool_.ParallelFor(count, 32, [&](int64_t begin, int64_t end, int thread) {
    AlignedArray<float>& tile = scratch_[static_cast<size_t>(thread)].tile;
    tile.Resize(columns);
    for (int64_t r = begin; r < end; ++r) {
      if (bf16) {
        ExpandRow(weight, first + r, tile.data());
        kernels_.round_bf16(tile.data(), columns, operand.own_words.data() + r * operand.stride);
      } else {
        float* row = operand.own_floats.data() + r * operand.stride;
        ExpandRow(weight, first + r, row);
        std::fill(row + columns, row + operand.stride, 0.0f);
      }
    }
  });
}

void CpuBackward::Multiply(const Operand& a, const Operand& b, float* c, int64_t c_stride) {
  CHECK(a.inner == b.inner && a.bf16 == b.bf16, "{} and {}", a.inner, b.inner);
  constexpr int64_t kMostRows = 240, kColumns = 128;  // of a piece of the result
  const int64_t down = (a.rows + kMostRows - 1) / kMostRows,
                across = (b.rows + kColumns - 1) / kColumns;
  const int64_t piece_rows = (a.rows + down - 1) / std::max<int64_t>(1, down);
  pool_.ParallelFor(down * across, 1, [&](int64_t begin, int64_t end, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    scratch.matmul.Resize(kernels::MatmulScratchBytes(a.inner));
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t top = piece / across * piece_rows, left = piece % across * kColumns;
      const int64_t rows = std::min(piece_rows, a.rows - top);
      kernels::WeightRows w;
      w.rows = std::min(kColumns, b.rows - left);
      w.inner = a.inner;
      w.row_bytes = b.stride * (b.bf16 ? 2 : 4);
      float* to = c + top * c_stride + left;
      if (a.bf16) {
        w.data = reinterpret_cast<const uint8_t*>(b.words + left * b.stride);
        kernels_.matmul_bf16(w, a.words + top * a.stride, a.stride, rows, to, c_stride,
                             scratch.matmul.data());
      } else {
        w.data = reinterpret_cast<const uint8_t*>(b.floats + left * b.stride);
        kernels_.matmul_f32(w, a.floats + top * a.stride, a.stride, rows, to, c_stride,
                            scratch.matmul.data());
      }
    }
  });
}

void CpuBackward::Accumulate(const Operand& p, bool turned, const Operand& v, float* c,
                             int64_t c_stride, bool add) {
  constexpr int64_t kRows = 48, kColumns = 256;  // of a piece of the result
  const int64_t rows = turned ? p.inner : p.rows;
  CHECK((turned ? p.rows : p.inner) == v.rows && p.bf16 == v.bf16, "{} and {}", p.inner, v.rows);
  const int64_t down = (rows + kRows - 1) / kRows, across = (v.inner + kColumns - 1) / kColumns;
  pool_.ParallelFor(down * across, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t top = piece / across * kRows, left = piece % across * kColumns;
      const int64_t height = std::min(kRows, rows - top),
                    width = std::min(kColumns, v.inner - left), padded = Padded(width);
      float* to = c + top * c_stride + left;
      for (int64_t i = 0; !add && i < height; ++i) std::fill_n(to + i * c_stride, width, 0.0f);
      if (!p.bf16 || padded == width) {
        AccumulatePiece(p, turned, v, top, height, left, width, to, c_stride);
        continue;
      }
      // The kernel writes whole steps of columns.
      AlignedArray<float>& tile = scratch_[static_cast<size_t>(thread)].tile;
      tile.Resize(height * padded);
      for (int64_t i = 0; i < height; ++i) {
        std::copy_n(to + i * c_stride, width, tile.data() + i * padded);
        std::fill_n(tile.data() + i * padded + width, padded - width, 0.0f);
      }
      AccumulatePiece(p, turned, v, top, height, left, padded, tile.data(), padded);
      for (int64_t i = 0; i < height; ++i)
        std::copy_n(tile.data() + i * padded, width, to + i * c_stride);
    }
  });
}

void CpuBackward::AccumulatePiece(const Operand& p, bool turned, const Operand& v, int64_t top,
                                  int64_t rows, int64_t left, int64_t columns, float* c,
                                  int64_t c_stride) const {
  constexpr int64_t kSlots = 256;  // whose values stay in the second-level cache
  const int64_t p_head = turned ? 1 : p.stride, p_slot = turned ? p.stride : 1;
  for (int64_t s = 0; s < v.rows; s += kSlots) {
    const int64_t slots = std::min(kSlots, v.rows - s), from = top * p_head + s * p_slot;
    if (p.bf16) {
      kernels_.accumulate_bf16(p.words + from, p_head, p_slot, v.words + s * v.stride + left,
                               v.stride, rows, slots + slots % 2, columns, c, c_stride);
    } else {
      kernels_.accumulate_f32(p.floats + from, p_head, p_slot, v.floats + s * v.stride + left,
                              v.stride, rows, slots, columns, c, c_stride);
    }
  }
}

void CpuBackward::Product(const Operand& x, const Matrix& weight, int64_t first, int64_t count,
                          const float* grad_y, int64_t y_stride, float* grad_weight, float* grad_x,
                          int64_t grad_x_stride, bool add) {
  if (x.rows == 0) return;
  PackRows(grad_y, x.rows, count, y_stride, x.bf16, false, a_);
  if (grad_x != nullptr) {
    PackWeight(weight, first, count, x.bf16, b_);
    Accumulate(a_, false, b_, grad_x, grad_x_stride, add);
  }
  if (grad_weight != nullptr) Accumulate(a_, true, x, grad_weight, weight.columns, true);
}

void CpuBackward::Linear(const Tensor& x, std::span<const ProjectionGradient> projections,
                         Tensor* grad_x) {
  // Inputs as they are and as quantised weights meet them, each packed for all that want it.
  bool packed[2] = {false, false};
  for (const ProjectionGradient& projection : projections) {
    const Matrix& weight = *projection.weight;
    const bool quantise = Quantises(weight);
    Operand& inputs = quantise ? quantised_inputs_ : inputs_;
    if (!packed[quantise])
      PackRows(x.data(), x.rows(), x.width(), x.width(), official(), quantise, inputs);
    packed[quantise] = true;
    Product(inputs, weight, 0, weight.rows, projection.grad_output->data(), weight.rows,
            projection.grad_weight, grad_x == nullptr ? nullptr : grad_x->data(), weight.columns,
            true);
  }
}

void CpuBackward::GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                                const Tensor& grad_output, float* grad_weight, Tensor& grad_x) {
  const int64_t k = weight.columns, rank = weight.rows / groups;
  grad_x.Reshape({x.rows(), groups * k});
  for (int64_t group = 0; group < groups; ++group) {
    PackRows(x.data() + group * k, x.rows(), k, groups * k, official(), false, inputs_);
    Product(inputs_, weight, group * rank, rank, grad_output.data() + group * rank, weight.rows,
            grad_weight + group * rank * k, grad_x.data() + group * k, groups * k, false);
  }
}

double CpuBackward::Softmax(float* logits, int64_t vocabulary, float maximum,
                            uint16_t* numerators) const {
  double total = 0;
  if (!official()) {
    for (int64_t v = 0; v < vocabulary; ++v) total += logits[v] = Exp(logits[v] - maximum);
    return total;
  }
  constexpr int64_t kPart = 512;  // numbers that are added in floats
  const int64_t padded = Padded(vocabulary);
  std::fill(logits + vocabulary, logits + padded, -std::numeric_limits<float>::infinity());
  for (int64_t v = 0; v < padded; v += kPart) {
    float lanes[kLanes] = {};
    kernels_.softmax_numerators(logits + v, std::min(kPart, padded - v), maximum, numerators + v,
                                lanes);
    total += FoldLanes(lanes);
  }
  return total;
}

double CpuBackward::CrossEntropy(const Tensor& x, const Matrix& head,
                                 std::span<const int32_t> targets, float weight, float* grad_head,
                                 Tensor& grad_x) {
  constexpr int64_t kRows = 240;  // whose logits live at a time
  const int64_t d = head.columns, vocabulary = head.rows, stride = Padded(vocabulary);
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
  std::vector<float> factors(kRows);
  PackWeight(head, 0, vocabulary, official(), head_);
  for (int64_t begin = 0; begin < total_rows; begin += kRows) {
    const int64_t rows = std::min(kRows, total_rows - begin);
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(x.Row(counted[static_cast<size_t>(begin + i)]), d, part.Row(i));
    logits_.Reshape({rows, stride});
    PackRows(part.data(), rows, d, d, official(), false, a_);
    Multiply(a_, head_, logits_.data(), stride);
    // The gradient of a row's logits is factor (e - total [target]) with e the numerators of the
    // softmax: the factor, which spans more than BF16 tells apart from the rest, waits.
    probabilities_.Resize(rows, vocabulary, official());
    if (!official()) probabilities_.floats = logits_.data();
    ForRows(rows, 4, [&](int64_t i) {
      const auto at = static_cast<size_t>(begin + i);
      const int32_t target = targets[static_cast<size_t>(counted[at])];
      float* row = logits_.Row(i);
      const float maximum = MaxFloat(row, vocabulary);
      const float logit = row[target];
      uint16_t* numerators = official() ? probabilities_.own_words.data() + i * stride : nullptr;
      const double total = Softmax(row, vocabulary, maximum, numerators);
      const auto rest = static_cast<float>(static_cast<double>(Exp(logit - maximum)) - total);
      if (official()) {
        numerators[target] = FloatToBf16(rest);
      } else {
        row[target] = rest;
      }
      losses[at] = std::log(total) + maximum - logit;
      const auto factor = static_cast<float>(weight / total);
      factors[static_cast<size_t>(i)] = factor;
      for (int64_t c = 0; c < d; ++c) part.Row(i)[c] *= factor;
    });
    Accumulate(probabilities_, false, head_, grad.data(), d, false);
    PackRows(part.data(), rows, d, d, official(), false, b_);
    Accumulate(probabilities_, true, b_, grad_head, d, true);
    for (int64_t i = 0; i < rows; ++i) {
      float* to = grad_x.Row(counted[static_cast<size_t>(begin + i)]);
      for (int64_t c = 0; c < d; ++c) to[c] = factors[static_cast<size_t>(i)] * grad.Row(i)[c];
    }
  }
  double loss = 0;
  for (const double one : losses) loss += one;
  return loss;
}

}  // namespace toaster
