// The compressor, section 8, for any chunk of tokens.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "tensor/elementary.h"
#include "tensor/rotate.h"

namespace toaster {

namespace {

// One slot of a pooling window: D values and D scores.
struct Slot {
  const float* values;
  const float* scores;
};

// Softmax over the slots of each channel, then the weighted sum.
void Pool(const std::vector<Slot>& slots, int64_t width, float* pooled) {
  for (int64_t i = 0; i < width; ++i) {
    float maximum = slots[0].scores[i];
    for (const Slot& slot : slots) maximum = std::max(maximum, slot.scores[i]);
    float total = 0, weighted = 0;
    for (const Slot& slot : slots) {
      const float e = Exp(slot.scores[i] - maximum);
      total += e;
      weighted = std::fma(e, slot.values[i], weighted);
    }
    pooled[i] = weighted / total;
  }
}

}  // namespace

void ReferenceBackend::Compress(const Tensor& values, const Tensor& scores,
                                const CompressParameters& parameters,
                                std::span<const Segment> segments,
                                std::span<const CompressTarget> targets) {
  const int64_t ratio = parameters.ratio, width = parameters.norm.size,
                columns = parameters.ape.columns;
  const bool overlap = columns == 2 * width;
  const int64_t rotary = 2 * static_cast<int64_t>(parameters.frequencies.size());
  std::vector<float> bias(static_cast<size_t>(columns)), entry(static_cast<size_t>(width));
  std::vector<float> cosine(parameters.frequencies.size()), sine(parameters.frequencies.size());
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    CompressorTail& tail = *targets[s].tail;
    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t position = segment.start + i, slot = position % ratio;
      float* pending_values = tail.pending_values.Row(slot);
      float* pending_scores = tail.pending_scores.Row(slot);
      ExpandRow(parameters.ape, slot, bias.data());
      for (int64_t c = 0; c < columns; ++c) {
        pending_values[c] = values.Row(segment.first_row + i)[c];
        pending_scores[c] = scores.Row(segment.first_row + i)[c] + bias[static_cast<size_t>(c)];
      }
      if (slot + 1 < ratio) continue;

      const int64_t block = position / ratio;
      std::vector<Slot> slots;
      if (overlap && block > 0) {
        for (int64_t r = 0; r < ratio; ++r) {
          slots.push_back({tail.previous_values.Row(r), tail.previous_scores.Row(r)});
        }
      }
      const int64_t own = overlap ? width : 0;  // the current block's channels
      for (int64_t r = 0; r < ratio; ++r) {
        slots.push_back({tail.pending_values.Row(r) + own, tail.pending_scores.Row(r) + own});
      }
      Pool(slots, width, entry.data());
      if (overlap) {
        for (int64_t r = 0; r < ratio; ++r) {
          std::copy_n(tail.pending_values.Row(r), width, tail.previous_values.Row(r));
          std::copy_n(tail.pending_scores.Row(r), width, tail.previous_scores.Row(r));
        }
      }

      for (float& x : entry) x = Round(x);
      NormaliseRow(entry.data(), parameters.norm, parameters.norm_eps, entry.data());
      RotationAngles(block * ratio, parameters.frequencies, cosine.data(), sine.data());
      float* turned = entry.data() + width - rotary;
      RotatePairs(turned, rotary, cosine.data(), sine.data(), false);
      for (int64_t c = 0; c < rotary; ++c) turned[c] = Round(turned[c]);
      uint8_t* row = targets[s].rows->Append();
      if (!parameters.indexer_key) {
        WriteEntry(entry.data(), {width - rotary, rotary}, row);
        continue;
      }
      HadamardTransform(entry.data(), width);
      for (float& x : entry) x = Round(x);
      if (official()) {
        EncodeKey(entry.data(), width, row);
      } else {
        std::memcpy(row, entry.data(), static_cast<size_t>(4 * width));
      }
    }
  }
}

}  // namespace toaster
