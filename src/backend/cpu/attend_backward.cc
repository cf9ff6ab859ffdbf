// Backward of core attention and the inverse rotation, sections 7.3 to 7.5.
//
// A block of queries with all their heads meets the entries that any of them sees in four matrix
// products: scores, gradients of the weights, of the queries, and of keys and values together. The
// last go to a buffer of the block; buffers are added in the order of blocks, a fixed number of
// blocks at a time.

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/row_operations.h"
#include "tensor/elementary.h"
#include "tensor/maximum.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kQueries = 32;  // rows of a block
constexpr int64_t kWave = 16;     // blocks whose buffers live at a time

int64_t Padded(int64_t n) { return (n + 31) / 32 * 32; }

}  // namespace

// One block of queries: what it reads and where its results go.
struct CpuBackward::AttendBlock {
  const Tensor& q;
  const Tensor& grad_output;
  const AttendParameters& parameters;
  const Rotation& rotation;
  const Segment& segment;
  const Tensor& window;        ///< [segment rows, c]
  const Tensor& entries;       ///< [complete blocks, c]
  int64_t begin = 0, end = 0;  ///< rows of the segment
  Tensor& grad_q;
  EntryProbabilities* probabilities = nullptr;
  Tensor* grad_keys = nullptr;  ///< becomes [window rows seen, then entries seen, padded c]
  float* grad_sink = nullptr;   ///< [heads], set

  int64_t first_window() const { return std::max<int64_t>(0, begin - parameters.window + 1); }
  int64_t window_rows() const { return end - first_window(); }
  int64_t entry_rows() const { return parameters.ratio > 0 ? end / parameters.ratio : 0; }
};

namespace {

// A matrix in one thread's hands, all zero at first: BF16 words or floats, rows padded to 32
// elements, and an even number of them.
class Panel {
 public:
  Panel(const kernels::KernelTable& table, int64_t row_count, int64_t width, bool bf16)
      : rows(row_count), inner(width), stride(Padded(width)), table_(table), bf16_(bf16) {
    const int64_t size = (rows + rows % 2) * stride;
    if (bf16) {
      words_.Resize(size);
      std::fill_n(words_.data(), size, uint16_t{0});
    } else {
      floats_.Resize(size);
      std::fill_n(floats_.data(), size, 0.0f);
    }
  }
  // x[e] in column columns[e] of a row.
  void SetNumbers(int64_t row, const std::vector<int32_t>& columns, const float* x) {
    const int64_t at = row * stride;
    for (size_t e = 0; bf16_ && e < columns.size(); ++e)
      words_[at + columns[e]] = FloatToBf16(x[e]);
    for (size_t e = 0; !bf16_ && e < columns.size(); ++e) floats_[at + columns[e]] = x[e];
  }
  void SetRow(int64_t row, const float* x) {
    if (bf16_) {
      table_.round_bf16(x, inner, words_.data() + row * stride);
    } else {
      std::copy_n(x, inner, floats_.data() + row * stride);
    }
  }
  // c[i * c_stride + j] = row first + i of this times row j of `other`, i < count.
  void Multiply(int64_t first, int64_t count, const Panel& other, AlignedArray<std::byte>& scratch,
                float* c, int64_t c_stride) const {
    scratch.Resize(kernels::MatmulScratchBytes(inner));
    kernels::WeightRows w;
    w.rows = other.rows;
    w.inner = inner;
    w.row_bytes = stride * (bf16_ ? 2 : 4);
    if (bf16_) {
      w.data = reinterpret_cast<const uint8_t*>(other.words_.data());
      table_.matmul_bf16(w, words_.data() + first * stride, stride, count, c, c_stride,
                         scratch.data());
    } else {
      w.data = reinterpret_cast<const uint8_t*>(other.floats_.data());
      table_.matmul_f32(w, floats_.data() + first * stride, stride, count, c, c_stride,
                        scratch.data());
    }
  }
  // c = the first `count` rows of this times `other`, [count, other.inner].
  void Accumulate(int64_t count, const Panel& other, Tensor& c) const {
    Accumulate(stride, 1, count, inner, other, c);
  }
  // c = this, turned, times `other`, [inner, other.inner].
  void AccumulateTurned(const Panel& other, Tensor& c) const {
    Accumulate(1, stride, inner, rows, other, c);
  }
  const int64_t rows, inner, stride;

 private:
  // The rows of c have the stride of `other`: kernels write whole steps of columns.
  void Accumulate(int64_t p_head, int64_t p_slot, int64_t count, int64_t slots, const Panel& other,
                  Tensor& c) const {
    c.Reshape({count, other.stride});
    c.Fill(0);
    if (bf16_) {
      table_.accumulate_bf16(words_.data(), p_head, p_slot, other.words_.data(), other.stride,
                             count, slots + slots % 2, other.stride, c.data(), other.stride);
    } else {
      table_.accumulate_f32(floats_.data(), p_head, p_slot, other.floats_.data(), other.stride,
                            count, slots, other.stride, c.data(), other.stride);
    }
  }

  const kernels::KernelTable& table_;
  const bool bf16_;
  AlignedArray<uint16_t> words_;
  AlignedArray<float> floats_;
};

}  // namespace

void CpuBackward::AttendBlockBackward(const AttendBlock& block, Scratch& scratch) const {
  const AttendParameters& parameters = block.parameters;
  const int64_t heads = block.q.extent(1), width = block.q.extent(2);
  const int64_t pairs = block.rotation.cosine.width();
  const int64_t queries = block.end - block.begin, n = queries * heads;
  const int64_t first = block.first_window(), seen = block.window_rows(),
                entries = block.entry_rows(), m = seen + entries;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
  const bool bf16 = official();

  // Operands: rows of queries, then of output gradients (rotated back), and of keys.
  Panel rows(kernels_, 2 * n, width, bf16), keys(kernels_, m, width, bf16);
  std::vector<float> grad(static_cast<size_t>(width));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = block.segment.first_row + block.begin + i / heads;
    std::copy_n(block.grad_output.Row(row) + i % heads * width, width, grad.data());
    RotatePairs(grad.data() + width - 2 * pairs, 2 * pairs, block.rotation.cosine.Row(row),
                block.rotation.sine.Row(row), false);
    rows.SetRow(i, block.q.Row(row) + i % heads * width);
    rows.SetRow(n + i, grad.data());
  }
  for (int64_t j = 0; j < m; ++j)
    keys.SetRow(j, j < seen ? block.window.Row(first + j) : block.entries.Row(j - seen));
  Tensor scores({n, m}), grad_weights({n, m});
  rows.Multiply(0, n, keys, scratch.matmul, scores.data(), m);
  rows.Multiply(n, n, keys, scratch.matmul, grad_weights.data(), m);

  // Softmax and its backward: rows of the scores' gradients, then of weights; entries that a query
  // does not see keep 0.
  Panel weights(kernels_, 2 * n, m, bf16);
  std::vector<int32_t> visible;
  AlignedArray<float> seen_numbers;
  std::fill_n(block.grad_sink, heads, 0.0f);
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t at = block.begin + i, row = block.segment.first_row + at;
    visible.clear();
    for (int64_t p = std::max<int64_t>(0, at - parameters.window + 1); p <= at; ++p)
      visible.push_back(static_cast<int32_t>(p - first));
    const auto first_entry = static_cast<int64_t>(visible.size());
    if (parameters.ratio > 0 && parameters.selection.all) {
      for (int64_t j = 0; j < (at + 1) / parameters.ratio; ++j)
        visible.push_back(static_cast<int32_t>(seen + j));
    } else if (parameters.ratio > 0) {
      for (const int32_t j : parameters.selection.entries[static_cast<size_t>(row)])
        visible.push_back(static_cast<int32_t>(seen) + j);
    }
    std::vector<float>* kept = nullptr;
    if (block.probabilities != nullptr) {
      kept = &(*block.probabilities)[static_cast<size_t>(row)];
      kept->assign(visible.size() - static_cast<size_t>(first_entry), 0.0f);
    }
    // What is seen side by side, so that the loops between are ones of vectors.
    const auto count = static_cast<int64_t>(visible.size());
    seen_numbers.Resize(2 * count);
    float *p = seen_numbers.data(), *slope = p + count;
    for (int64_t head = 0; head < heads; ++head) {
      const float *s = scores.Row(i * heads + head), *g = grad_weights.Row(i * heads + head);
      for (int64_t e = 0; e < count; ++e) {
        const int32_t j = visible[static_cast<size_t>(e)];
        p[e] = s[j] * scale;
        slope[e] = g[j];
      }
      const float maximum = MaxFloat(p, count);
      const float sink = Exp(parameters.sink[head] - maximum);
      for (int64_t e = 0; e < count; ++e) p[e] = Exp(p[e] - maximum);
      const float total = sink + SumFloat(p, count);
      for (int64_t e = 0; e < count; ++e) p[e] /= total;
      const float dot = DotFloat(p, slope, count);
      block.grad_sink[head] -= sink / total * dot;
      for (int64_t e = 0; e < count; ++e) slope[e] = p[e] * (slope[e] - dot) * scale;
      weights.SetNumbers(i * heads + head, visible, slope);
      weights.SetNumbers(n + i * heads + head, visible, p);
      for (int64_t e = first_entry; kept != nullptr && e < count; ++e)
        (*kept)[static_cast<size_t>(e - first_entry)] += p[e];
    }
  }
  Tensor grad_queries;
  weights.Accumulate(n, keys, grad_queries);
  float* grad_q = block.grad_q.Row(block.segment.first_row + block.begin);
  for (int64_t i = 0; i < n; ++i) std::copy_n(grad_queries.Row(i), width, grad_q + i * width);
  weights.AccumulateTurned(rows, *block.grad_keys);
}

void CpuBackward::Attend(const Tensor& q, const AttendParameters& parameters,
                         const Rotation& rotation, std::span<const Segment> segments,
                         std::span<const AttendSource> sources, const Tensor& grad_output,
                         Tensor& grad_q, Tensor& grad_kv, std::vector<Tensor>& grad_entries,
                         float* grad_sink, EntryProbabilities* probabilities) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const int64_t row_bytes = official() ? EntryBytes(parameters.entry) : 4 * width;
  grad_q.Reshape({rows, heads, width});
  grad_kv.Reshape({rows, width});
  grad_kv.Fill(0);
  grad_entries.resize(segments.size());
  if (probabilities != nullptr) probabilities->assign(static_cast<size_t>(rows), {});
  std::vector<Tensor> window(segments.size()), entries(segments.size());
  std::vector<AttendBlock> blocks;
  std::vector<size_t> owners;  // the segment of each block
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t count = segments[s].rows;
    const int64_t complete = parameters.ratio > 0 ? count / parameters.ratio : 0;
    window[s].Reshape({count, width});
    entries[s].Reshape({complete, width});
    grad_entries[s].Reshape({complete, width});
    grad_entries[s].Fill(0);
    ForRows(count, 16, [&](int64_t i) {
      ReadEntry(sources[s].chunk + i * row_bytes, parameters.entry, official(), window[s].Row(i));
    });
    ForRows(complete, 16, [&](int64_t j) {
      ReadEntry(sources[s].compressed->Row(j), parameters.entry, official(), entries[s].Row(j));
    });
    for (int64_t begin = 0; begin < count; begin += kQueries) {
      blocks.push_back({q, grad_output, parameters, rotation, segments[s], window[s], entries[s],
                        begin, std::min(begin + kQueries, count), grad_q, probabilities});
      owners.push_back(s);
    }
  }
  std::vector<Tensor> buffers(kWave);
  Tensor sinks({kWave, heads});
  for (size_t wave = 0; wave < blocks.size(); wave += kWave) {
    const size_t count = std::min<size_t>(kWave, blocks.size() - wave);
    pool_.ParallelFor(static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        AttendBlock& block = blocks[wave + static_cast<size_t>(i)];
        block.grad_keys = &buffers[static_cast<size_t>(i)];
        block.grad_sink = sinks.Row(i);
        AttendBlockBackward(block, scratch_[static_cast<size_t>(thread)]);
      }
    });
    for (size_t i = 0; i < count; ++i) {
      const AttendBlock& block = blocks[wave + i];
      const size_t s = owners[wave + i];
      const int64_t seen = block.window_rows();
      ForRows(seen + block.entry_rows(), 32, [&](int64_t j) {
        const float* from = buffers[i].Row(j);
        float* to = j < seen ? grad_kv.Row(segments[s].first_row + block.first_window() + j)
                             : grad_entries[s].Row(j - seen);
        for (int64_t c = 0; c < width; ++c) to[c] += from[c];
      });
      for (int64_t head = 0; head < heads; ++head)
        grad_sink[head] += sinks.Row(static_cast<int64_t>(i))[head];
    }
  }
}

}  // namespace toaster
