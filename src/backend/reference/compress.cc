// The compressor, section 8, for any chunk of tokens.

#include <algorithm>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"

namespace toaster {

void ReferenceBackend::Compress(const Tensor& values, const Tensor& scores,
                                const CompressParameters& parameters,
                                std::span<const Segment> segments,
                                std::span<const CompressTarget> targets) {
  const int64_t ratio = parameters.ratio, width = parameters.norm.size,
                columns = parameters.ape.columns;
  const bool overlap = columns == 2 * width;
  std::vector<float> bias(static_cast<size_t>(columns));
  std::vector<PoolSlot> slots;
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    CompressorTail& tail = *targets[s].tail;
    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t position = segment.start + i, block = position / ratio, slot = position % ratio;
      const float* value = values.Row(segment.first_row + i);
      const float* score = scores.Row(segment.first_row + i);
      ExpandRow(parameters.ape, slot, bias.data());
      std::copy_n(value, columns, tail.pending_values.Row(slot));
      for (int64_t c = 0; c < columns; ++c) {
        tail.pending_scores.Row(slot)[c] = score[c] + bias[static_cast<size_t>(c)];
      }
      if (slot + 1 < ratio) continue;

      slots.clear();
      if (overlap && block > 0) {
        for (int64_t r = 0; r < ratio; ++r) {
          slots.push_back({tail.previous_values.Row(r), tail.previous_scores.Row(r)});
        }
      }
      const int64_t own = overlap ? width : 0;  // where the current block's channels begin
      for (int64_t r = 0; r < ratio; ++r) {
        slots.push_back({tail.pending_values.Row(r) + own, tail.pending_scores.Row(r) + own});
      }
      MakeCompressedRow(slots, parameters, block * ratio, official(), targets[s].rows->Append());
      if (!overlap) continue;
      for (int64_t r = 0; r < ratio; ++r) {
        std::copy_n(tail.pending_values.Row(r), width, tail.previous_values.Row(r));
        std::copy_n(tail.pending_scores.Row(r), width, tail.previous_scores.Row(r));
      }
    }
  }
}

}  // namespace toaster
