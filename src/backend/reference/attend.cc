// Core attention over window and compressed entries, and the inverse rotation: sections 7.3 to 7.5.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
#include "tensor/elementary.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

// The entries one query sees, expanded, in the order of summation. `number` decides lane and pair:
// the position of a window entry, the place in the list of a compressed one.
struct Visible {
  std::vector<float> values;  // [entries, width]
  std::vector<int64_t> numbers;
  size_t window_entries = 0;
};

// o[c] += sum over entries [begin, end) of p * k[c], the odd entry of each pair of numbers first.
void AddValues(const Visible& visible, size_t begin, size_t end, const std::vector<float>& p,
               int64_t width, float* o) {
  const auto add = [&](size_t entry) {
    const float* k = visible.values.data() + static_cast<int64_t>(entry) * width;
    for (int64_t c = 0; c < width; ++c) o[c] = std::fma(p[entry], k[c], o[c]);
  };
  for (size_t entry = begin; entry < end;) {
    const bool pair = visible.numbers[entry] % 2 == 0 && entry + 1 < end;
    if (pair) add(entry + 1);
    add(entry);
    entry += pair ? 2 : 1;
  }
}

}  // namespace

void ReferenceBackend::Attend(const Tensor& q, const AttendParameters& parameters,
                              const Rotation& rotation, std::span<const Segment> segments,
                              std::span<const AttendSource> sources, Tensor& output) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const int64_t row_bytes = EntryRowBytes(parameters.entry);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
  output.Reshape({rows, heads, width});
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    const AttendSource& source = sources[s];
    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t row = segment.first_row + i, position = segment.start + i;
      Visible visible;
      const auto add = [&](const uint8_t* entry, int64_t number) {
        visible.values.resize(visible.values.size() + static_cast<size_t>(width));
        ReadEntry(entry, parameters.entry, official(),
                  visible.values.data() + visible.values.size() - width);
        visible.numbers.push_back(number);
      };
      for (int64_t p = std::max<int64_t>(0, position - parameters.window + 1); p <= position; ++p) {
        add(p < segment.start ? source.ring + p % parameters.window * row_bytes
                              : source.chunk + (p - segment.start) * row_bytes,
            p);
      }
      visible.window_entries = visible.numbers.size();
      if (parameters.ratio > 0) {
        const int64_t complete = (position + 1) / parameters.ratio;
        if (parameters.selection.all) {
          for (int64_t j = 0; j < complete; ++j) add(source.compressed->Row(j), j);
        } else {
          int64_t j = 0;
          for (const int32_t entry : parameters.selection.entries[static_cast<size_t>(row)]) {
            add(source.compressed->Row(entry), j++);
          }
        }
      }

      const size_t entries = visible.numbers.size();
      std::vector<float> p(entries);
      for (int64_t head = 0; head < heads; ++head) {
        const float* query = q.Row(row) + head * width;
        float maximum = -std::numeric_limits<float>::infinity();
        for (size_t e = 0; e < entries; ++e) {
          p[e] = Dot(query, visible.values.data() + static_cast<int64_t>(e) * width, width) * scale;
          maximum = std::max(maximum, p[e]);
        }
        float lanes[kLanes] = {};
        for (size_t e = 0; e < entries; ++e) {
          p[e] = Exp(p[e] - maximum);
          lanes[visible.numbers[e] % kLanes] += p[e];
          p[e] = Round(p[e]);
        }
        const float total = FoldLanes(lanes) + Exp(parameters.sink[head] - maximum);
        float* o = output.Row(row) + head * width;
        std::fill_n(o, width, 0.0f);
        AddValues(visible, 0, visible.window_entries, p, width, o);
        AddValues(visible, visible.window_entries, entries, p, width, o);
        for (int64_t c = 0; c < width; ++c) o[c] = Round(o[c] / total);
        RotateTail(o, width, rotation.cosine.Row(row), rotation.sine.Row(row),
                   rotation.cosine.width(), true, official());
      }
    }
  }
}

}  // namespace toaster
