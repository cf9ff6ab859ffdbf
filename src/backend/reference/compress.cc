// The compressor, section 8, for any chunk of tokens.

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
#include "tensor/block_quantization.h"

namespace toaster {

namespace {

// What the compact forms of an entry and of a key round, on a row that is kept in floats.
void QuantiseStoredFloats(const CompressParameters& parameters, uint8_t* row) {
  const int64_t width = parameters.norm.size;
  std::vector<float> values(static_cast<size_t>(width));
  std::memcpy(values.data(), row, static_cast<size_t>(4 * width));
  if (parameters.indexer_key) {
    std::vector<uint8_t> key(static_cast<size_t>(KeyBytes(width)));
    EncodeKey(values.data(), width, key.data());
    DecodeKey(key.data(), width, values.data());
  } else {
    const auto rotary = static_cast<int64_t>(2 * parameters.frequencies.size());
    QuantizeE4m3(values.data(), width - rotary, 64, values.data());
  }
  std::memcpy(row, values.data(), static_cast<size_t>(4 * width));
}

}  // namespace

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
      uint8_t* stored = targets[s].rows->Append();
      MakeCompressedRow(slots, parameters, block * ratio, official(), stored);
      if (!official() && quantises()) QuantiseStoredFloats(parameters, stored);
      if (!overlap) continue;
      for (int64_t r = 0; r < ratio; ++r) {
        std::copy_n(tail.pending_values.Row(r), width, tail.previous_values.Row(r));
        std::copy_n(tail.pending_scores.Row(r), width, tail.previous_scores.Row(r));
      }
    }
  }
}

}  // namespace toaster
