// Backward of the compressor, section 8, on whole documents.

#include <vector>

#include "backend/reference/reference_backward.h"
#include "backend/row_gradients.h"

namespace toaster {

void ReferenceBackward::Compress(const Tensor& values, const Tensor& scores,
                                 const CompressParameters& parameters,
                                 std::span<const Segment> segments,
                                 std::span<const Tensor> grad_entries, float* grad_ape,
                                 float* grad_norm, Tensor& grad_values, Tensor& grad_scores) {
  const int64_t ratio = parameters.ratio, width = parameters.norm.size,
                columns = parameters.ape.columns;
  const bool overlap = columns == 2 * width;
  grad_values.Reshape({values.rows(), columns});
  grad_scores.Reshape({values.rows(), columns});
  grad_values.Fill(0);
  grad_scores.Fill(0);
  Tensor biased;
  biased.CopyFrom(scores);
  std::vector<float> bias(static_cast<size_t>(columns));
  std::vector<PoolSlot> slots;
  std::vector<PoolSlotGradient> gradients;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t first = segments[s].first_row, blocks = segments[s].rows / ratio;
    for (int64_t i = 0; i < blocks * ratio; ++i) {
      ExpandRow(parameters.ape, i % ratio, bias.data());
      for (int64_t c = 0; c < columns; ++c)
        biased.Row(first + i)[c] += bias[static_cast<size_t>(c)];
    }
    for (int64_t block = 0; block < blocks; ++block) {
      slots.clear();
      gradients.clear();
      const auto add = [&](int64_t of_block, int64_t from) {
        for (int64_t row = first + of_block * ratio; row < first + (of_block + 1) * ratio; ++row) {
          slots.push_back({values.Row(row) + from, biased.Row(row) + from});
          gradients.push_back({grad_values.Row(row) + from, grad_scores.Row(row) + from});
        }
      };
      if (overlap && block > 0) add(block - 1, 0);
      add(block, overlap ? width : 0);
      MakeCompressedRowBackward(slots, parameters, block * ratio, official(),
                                grad_entries[s].Row(block), gradients, grad_norm);
    }
    for (int64_t i = 0; i < blocks * ratio; ++i) {
      const float* grad = grad_scores.Row(first + i);
      for (int64_t c = 0; c < columns; ++c) grad_ape[i % ratio * columns + c] += grad[c];
    }
  }
}

}  // namespace toaster
