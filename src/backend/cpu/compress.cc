// The compressor, section 8, for any chunk of tokens: the blocks that become complete are
// independent of each other.

#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"

namespace toaster {

namespace {

// A block that becomes complete in this chunk.
struct Block {
  const CompressorTail* tail;
  const Segment* segment;
  int64_t number;
  uint8_t* row;
};

}  // namespace

void CpuBackend::Compress(const Tensor& values, const Tensor& scores,
                          const CompressParameters& parameters, std::span<const Segment> segments,
                          std::span<const CompressTarget> targets) {
  const int64_t ratio = parameters.ratio, width = parameters.norm.size,
                columns = parameters.ape.columns;
  const bool overlap = columns == 2 * width;

  // Scores with their position bias, for every token of the chunk.
  biased_.Reshape({scores.rows(), columns});
  std::vector<Block> blocks;
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    pool_.ParallelFor(segment.rows, 16, [&](int64_t begin, int64_t end, int thread) {
      Scratch& scratch = scratch_[static_cast<size_t>(thread)];
      scratch.floats.Resize(columns);
      for (int64_t i = begin; i < end; ++i) {
        ExpandRow(parameters.ape, (segment.start + i) % ratio, scratch.floats.data());
        const float* score = scores.Row(segment.first_row + i);
        float* out = biased_.Row(segment.first_row + i);
        for (int64_t c = 0; c < columns; ++c) out[c] = score[c] + scratch.floats[c];
      }
    });
    const int64_t end = segment.start + segment.rows;
    for (int64_t block = segment.start / ratio; block < end / ratio; ++block) {
      blocks.push_back({targets[s].tail, &segment, block, targets[s].rows->Append()});
    }
  }

  // Where the projections of the token at `position` are: in this chunk, pending in the tail, or
  // kept of the previous block.
  const auto slot_of = [&](const Block& block, int64_t position, int64_t channel) -> PoolSlot {
    const Segment& segment = *block.segment;
    if (position >= segment.start) {
      const int64_t row = segment.first_row + position - segment.start;
      return {values.Row(row) + channel, biased_.Row(row) + channel};
    }
    const int64_t r = position % ratio;
    const CompressorTail& tail = *block.tail;
    if (position >= segment.start / ratio * ratio) {
      return {tail.pending_values.Row(r) + channel, tail.pending_scores.Row(r) + channel};
    }
    return {tail.previous_values.Row(r), tail.previous_scores.Row(r)};
  };
  pool_.ParallelFor(static_cast<int64_t>(blocks.size()), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<PoolSlot> slots;
    for (int64_t i = begin; i < end; ++i) {
      const Block& block = blocks[static_cast<size_t>(i)];
      const int64_t first = block.number * ratio;
      slots.clear();
      if (overlap && block.number > 0) {
        for (int64_t p = first - ratio; p < first; ++p) slots.push_back(slot_of(block, p, 0));
      }
      for (int64_t p = first; p < first + ratio; ++p)
        slots.push_back(slot_of(block, p, overlap ? width : 0));
      MakeCompressedRow(slots, parameters, first, official(), block.row);
    }
  });

  // The tails: first half of the last complete block, then what is pending.
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    CompressorTail& tail = *targets[s].tail;
    const int64_t end = segment.start + segment.rows, complete = end / ratio * ratio;
    if (overlap && complete > segment.start) {
      const Block last{&tail, &segment, complete / ratio - 1, nullptr};
      for (int64_t r = 0; r < ratio; ++r) {
        const PoolSlot slot = slot_of(last, complete - ratio + r, 0);
        std::copy_n(slot.values, width, tail.previous_values.Row(r));
        std::copy_n(slot.scores, width, tail.previous_scores.Row(r));
      }
    }
    for (int64_t p = std::max(complete, segment.start); p < end; ++p) {
      const int64_t row = segment.first_row + p - segment.start;
      std::copy_n(values.Row(row), columns, tail.pending_values.Row(p % ratio));
      std::copy_n(biased_.Row(row), columns, tail.pending_scores.Row(p % ratio));
    }
  }
}

}  // namespace toaster
