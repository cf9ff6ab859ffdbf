// Core attention over window and compressed entries, and the inverse rotation: sections 7.3 to 7.5.
//
// The entries that a query sees are laid out in slots: the window from a slot that is a multiple of
// 16 like its position, filled up to a multiple of 32, then the compressed entries. So the slot
// decides lane and pair as the position (or the number in the list) does, and slots without an
// entry have score -infinity, weight 0 and value 0, which changes no sum.

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kTile = 128;      // slots expanded at a time
constexpr int64_t kStep = 32;       // slots are padded to a multiple of this
constexpr int64_t kSlotsAhead = 4;  // entries lie anywhere: so early they are fetched

int64_t DivideUp(int64_t n, int64_t parts) { return (n + parts - 1) / parts; }
int64_t RoundUp(int64_t n, int64_t step) { return DivideUp(n, step) * step; }

// The slots of one query.
struct Slots {
  int64_t position = 0;
  int64_t window_first = 0;  // first visible position
  int64_t window_base = 0;   // position of slot 0
  int64_t compressed_base = 0;
  int64_t compressed = 0;  // entries
  const int32_t* chosen = nullptr;
  int64_t count = 0;

  Slots(const AttendParameters& parameters, int64_t at, const std::vector<int32_t>* list)
      : position(at),
        window_first(std::max<int64_t>(0, at - parameters.window + 1)),
        window_base(window_first / kLanes * kLanes),
        compressed_base(RoundUp(at + 1 - window_base, kStep)) {
    if (parameters.ratio > 0) {
      compressed = list ? static_cast<int64_t>(list->size()) : (at + 1) / parameters.ratio;
      if (list != nullptr) chosen = list->data();
    }
    count = RoundUp(compressed_base + compressed, kStep);
  }
  // The entry in `slot`, or null.
  const uint8_t* Entry(int64_t slot, const AttendParameters& parameters, const Segment& segment,
                       const AttendSource& source, int64_t row_bytes) const {
    if (slot >= compressed_base) {
      const int64_t j = slot - compressed_base;
      if (j >= compressed) return nullptr;
      return source.compressed->Row(chosen ? chosen[j] : j);
    }
    const int64_t p = window_base + slot;
    if (p < window_first || p > position) return nullptr;
    return p < segment.start ? source.ring + p % parameters.window * row_bytes
                             : source.chunk + (p - segment.start) * row_bytes;
  }
};

}  // namespace

void CpuBackend::AttendHeads(const Tensor& q, const AttendParameters& parameters,
                             const Rotation& rotation, const Segment& segment,
                             const AttendSource& source, int64_t index, int64_t head_begin,
                             int64_t head_end, Scratch& scratch, Tensor& output) const {
  const int64_t width = q.extent(2), heads = head_end - head_begin, row = segment.first_row + index;
  const int64_t stride = RoundUp(width, 32), row_bytes = EntryRowBytes(parameters.entry);
  const bool all = parameters.selection.all;
  const Slots slots(parameters, segment.start + index,
                    all ? nullptr : &parameters.selection.entries[static_cast<size_t>(row)]);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
  const float* queries = q.Row(row) + head_begin * width;

  scratch.scores.Resize(heads * slots.count);
  scratch.matmul.Resize(kernels::MatmulScratchBytes(width));
  float* scores = scratch.scores.data();
  // Layout of the value accumulators: rows of `stride`, so that padded columns have a place.
  scratch.floats.Resize(heads * stride);
  float* o = scratch.floats.data();
  if (official()) {
    scratch.tile.Resize(kTile * stride);
    scratch.bf16.Resize(heads * std::max(stride, slots.count));
  } else {
    scratch.expanded.Resize((kTile + heads) * stride);
  }
  float* float_tile = official() ? nullptr : scratch.expanded.data();
  float* float_queries = official() ? nullptr : float_tile + kTile * stride;

  const auto expand = [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) {
      if (slot + kSlotsAhead < slots.count) {
        const uint8_t* ahead =
            slots.Entry(slot + kSlotsAhead, parameters, segment, source, row_bytes);
        for (int64_t at = 0; ahead != nullptr && at < row_bytes; at += 64)
          __builtin_prefetch(ahead + at);
      }
      const uint8_t* entry = slots.Entry(slot, parameters, segment, source, row_bytes);
      if (official()) {
        uint16_t* out = scratch.tile.data() + (slot - begin) * stride;
        if (entry == nullptr) {
          std::fill_n(out, stride, uint16_t{0});
        } else {
          kernels_.expand_entry(entry, parameters.entry.plain, parameters.entry.rotary, out);
          std::fill(out + width, out + stride, uint16_t{0});
        }
      } else {
        float* out = float_tile + (slot - begin) * stride;
        std::fill_n(out, stride, 0.0f);
        if (entry != nullptr) ReadEntry(entry, parameters.entry, false, out);
      }
    }
  };

  // Scores of every slot.
  for (int64_t head = 0; head < heads; ++head) {
    if (official()) {
      kernels_.round_bf16(queries + head * width, width, scratch.bf16.data() + head * stride);
    } else {
      std::fill_n(float_queries + head * stride, stride, 0.0f);
      std::copy_n(queries + head * width, width, float_queries + head * stride);
    }
  }
  for (int64_t begin = 0; begin < slots.count; begin += kTile) {
    const int64_t end = std::min(begin + kTile, slots.count);
    expand(begin, end);
    kernels::WeightRows keys{nullptr, 0, end - begin, width, nullptr};
    if (official()) {
      keys.data = reinterpret_cast<const uint8_t*>(scratch.tile.data());
      keys.row_bytes = 2 * stride;
      kernels_.matmul_bf16(keys, scratch.bf16.data(), stride, heads, scores + begin, slots.count,
                           scratch.matmul.data());
    } else {
      keys.data = reinterpret_cast<const uint8_t*>(float_tile);
      keys.row_bytes = 4 * stride;
      kernels_.matmul_f32(keys, float_queries, stride, heads, scores + begin, slots.count,
                          scratch.matmul.data());
    }
  }

  // Softmax. Afterwards `scores` (fp32) or `numerators` (official) hold the weights and `totals`
  // the denominators.
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  uint16_t* numerators = scratch.bf16.data();
  std::vector<float> totals(static_cast<size_t>(heads));
  for (int64_t head = 0; head < heads; ++head) {
    float* s = scores + head * slots.count;
    std::fill(s, s + (slots.window_first - slots.window_base), kNone);
    std::fill(s + (slots.position + 1 - slots.window_base), s + slots.compressed_base, kNone);
    std::fill(s + slots.compressed_base + slots.compressed, s + slots.count, kNone);
    const float maximum = kernels_.scale_scores(s, slots.count, scale);
    alignas(64) float lanes[kLanes] = {};
    if (official()) {
      kernels_.softmax_numerators(s, slots.count, maximum, numerators + head * slots.count, lanes);
    } else {
      for (int64_t slot = 0; slot < slots.count; ++slot)
        lanes[slot % kLanes] += s[slot] = Exp(s[slot] - maximum);
    }
    totals[static_cast<size_t>(head)] =
        FoldLanes(lanes) + Exp(parameters.sink[head_begin + head] - maximum);
  }

  // Values.
  std::fill_n(o, heads * stride, 0.0f);
  for (int64_t begin = 0; begin < slots.count; begin += kTile) {
    const int64_t end = std::min(begin + kTile, slots.count);
    if (slots.count > kTile) expand(begin, end);
    if (official()) {
      kernels_.accumulate_bf16(numerators + begin, slots.count, 1, scratch.tile.data(), stride,
                               heads, end - begin, stride, o, stride);
      continue;
    }
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t slot = begin; slot < end; slot += 2) {
        for (const int64_t at : {slot + 1, slot}) {
          const float p = scores[head * slots.count + at];
          const float* k = float_tile + (at - begin) * stride;
          for (int64_t c = 0; c < width; ++c)
            o[head * stride + c] = std::fma(p, k[c], o[head * stride + c]);
        }
      }
    }
  }
  for (int64_t head = 0; head < heads; ++head) {
    float* out = output.Row(row) + (head_begin + head) * width;
    const float total = totals[static_cast<size_t>(head)];
    for (int64_t c = 0; c < width; ++c) out[c] = Round(o[head * stride + c] / total);
    RotateTail(out, width, rotation.cosine.Row(row), rotation.sine.Row(row),
               rotation.cosine.width(), true, official());
  }
}

void CpuBackend::Attend(const Tensor& q, const AttendParameters& parameters,
                        const Rotation& rotation, std::span<const Segment> segments,
                        std::span<const AttendSource> sources, Tensor& output) {
  const int64_t rows = q.extent(0), heads = q.extent(1);
  output.Reshape({rows, heads, q.extent(2)});
  // Few rows: heads are split too, so that every thread has work; the entries are then expanded
  // once per group of heads, and a product for few heads is slower. Pieces of different rows take
  // different times: more of them even that out.
  const int64_t pieces = rows == 1 ? pool_.threads() : 2 * pool_.threads();
  const int64_t wanted = DivideUp(pieces, std::max<int64_t>(rows, 1));
  const int64_t per_group =
      DivideUp(heads, std::clamp<int64_t>(wanted, 1, std::max<int64_t>(heads / 8, 1)));
  const int64_t groups = DivideUp(heads, per_group);
  std::vector<std::pair<size_t, int64_t>> places;  // per row: segment and index in it
  for (size_t s = 0; s < segments.size(); ++s) {
    for (int64_t i = 0; i < segments[s].rows; ++i) places.emplace_back(s, i);
  }
  pool_.ParallelFor(rows * groups, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const auto [s, index] = places[static_cast<size_t>(piece / groups)];
      const int64_t head = piece % groups * per_group;
      AttendHeads(q, parameters, rotation, segments[s], sources[s], index, head,
                  std::min(head + per_group, heads), scratch_[static_cast<size_t>(thread)], output);
    }
  });
}

}  // namespace toaster
