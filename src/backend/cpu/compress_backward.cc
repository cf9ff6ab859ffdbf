// Backward of the compressor, section 8, on whole documents.

#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/row_gradients.h"

namespace toaster {

void CpuBackward::Compress(const Tensor& values, const Tensor& scores,
                           const CompressParameters& parameters, std::span<const Segment> segments,
                           std::span<const Tensor> grad_entries, float* grad_ape, float* grad_norm,
                           Tensor& grad_values, Tensor& grad_scores) {
  constexpr int64_t kChunk = 16;  // blocks whose norm gradients are summed together
  const int64_t ratio = parameters.ratio, width = parameters.norm.size,
                columns = parameters.ape.columns, rows = values.rows();
  const bool overlap = columns == 2 * width;
  grad_values.Reshape({rows, columns});
  grad_scores.Reshape({rows, columns});
  Tensor biased({rows, columns}), ape({ratio, columns});
  for (int64_t r = 0; r < ratio; ++r) ExpandRow(parameters.ape, r, ape.Row(r));
  std::vector<int64_t> positions(static_cast<size_t>(rows));
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.rows; ++i)
      positions[static_cast<size_t>(segment.first_row + i)] = i;
  }
  ForRows(rows, 16, [&](int64_t row) {
    const float* bias = ape.Row(positions[static_cast<size_t>(row)] % ratio);
    for (int64_t c = 0; c < columns; ++c) biased.Row(row)[c] = scores.Row(row)[c] + bias[c];
    std::fill_n(grad_values.Row(row), columns, 0.0f);
    std::fill_n(grad_scores.Row(row), columns, 0.0f);
  });
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t first = segments[s].first_row, blocks = segments[s].rows / ratio;
    const int64_t chunks = (blocks + kChunk - 1) / kChunk;
    partial_.Reshape({chunks, width});
    // No two blocks write the same numbers: of overlapping ones each has its half of the channels.
    ForRows(chunks, 1, [&](int64_t chunk) {
      std::vector<PoolSlot> slots;
      std::vector<PoolSlotGradient> gradients;
      std::fill_n(partial_.Row(chunk), width, 0.0f);
      for (int64_t block = chunk * kChunk; block < std::min(blocks, (chunk + 1) * kChunk);
           ++block) {
        slots.clear();
        gradients.clear();
        const auto add = [&](int64_t of_block, int64_t from) {
          for (int64_t row = first + of_block * ratio; row < first + (of_block + 1) * ratio;
               ++row) {
            slots.push_back({values.Row(row) + from, biased.Row(row) + from});
            gradients.push_back({grad_values.Row(row) + from, grad_scores.Row(row) + from});
          }
        };
        if (overlap && block > 0) add(block - 1, 0);
        add(block, overlap ? width : 0);
        MakeCompressedRowBackward(slots, parameters, block * ratio, official(),
                                  grad_entries[s].Row(block), gradients, partial_.Row(chunk));
      }
    });
    AddRows(partial_, grad_norm);
    ForRows(ratio, 1, [&](int64_t r) {
      for (int64_t block = 0; block < blocks; ++block) {
        const float* grad = grad_scores.Row(first + block * ratio + r);
        for (int64_t c = 0; c < columns; ++c) grad_ape[r * columns + c] += grad[c];
      }
    });
  }
}

}  // namespace toaster
