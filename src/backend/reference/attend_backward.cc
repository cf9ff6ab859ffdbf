// Backward of core attention and the inverse rotation, sections 7.3 to 7.5.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/reference/reference_backward.h"
#include "backend/row_operations.h"
#include "tensor/elementary.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

// An entry that a query sees: its numbers and where its gradient goes.
struct Seen {
  const float* values;
  float* gradient;
};

}  // namespace

void ReferenceBackward::Attend(const Tensor& q, const AttendParameters& parameters,
                               const Rotation& rotation, std::span<const Segment> segments,
                               std::span<const AttendSource> sources, const Tensor& grad_output,
                               Tensor& grad_q, Tensor& grad_kv, std::vector<Tensor>& grad_entries,
                               float* grad_sink, EntryProbabilities* probabilities) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const int64_t pairs = rotation.cosine.width();
  const int64_t row_bytes = official() ? EntryBytes(parameters.entry) : 4 * width;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
  grad_q.Reshape({rows, heads, width});
  grad_q.Fill(0);
  grad_kv.Reshape({rows, width});
  grad_kv.Fill(0);
  grad_entries.resize(segments.size());
  if (probabilities != nullptr) probabilities->assign(static_cast<size_t>(rows), {});
  Tensor window, entries;
  std::vector<Seen> seen;
  std::vector<float> p, grad_p, grad_o(static_cast<size_t>(width));
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    const int64_t blocks = parameters.ratio > 0 ? segment.rows / parameters.ratio : 0;
    window.Reshape({segment.rows, width});
    entries.Reshape({blocks, width});
    grad_entries[s].Reshape({blocks, width});
    grad_entries[s].Fill(0);
    for (int64_t i = 0; i < segment.rows; ++i) {
      ReadEntry(sources[s].chunk + i * row_bytes, parameters.entry, official(), window.Row(i));
    }
    for (int64_t j = 0; j < blocks; ++j)
      ReadEntry(sources[s].compressed->Row(j), parameters.entry, official(), entries.Row(j));

    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t row = segment.first_row + i;
      seen.clear();
      for (int64_t k = std::max<int64_t>(0, i - parameters.window + 1); k <= i; ++k)
        seen.push_back({window.Row(k), grad_kv.Row(segment.first_row + k)});
      const size_t first_entry = seen.size();
      const auto see = [&](int64_t j) { seen.push_back({entries.Row(j), grad_entries[s].Row(j)}); };
      if (parameters.ratio > 0 && parameters.selection.all) {
        for (int64_t j = 0; j < (i + 1) / parameters.ratio; ++j) see(j);
      } else if (parameters.ratio > 0) {
        for (const int32_t j : parameters.selection.entries[static_cast<size_t>(row)]) see(j);
      }
      p.resize(seen.size());
      grad_p.resize(seen.size());
      if (probabilities != nullptr)
        (*probabilities)[static_cast<size_t>(row)].assign(seen.size() - first_entry, 0.0f);

      for (int64_t head = 0; head < heads; ++head) {
        const float* query = q.Row(row) + head * width;
        std::copy_n(grad_output.Row(row) + head * width, width, grad_o.data());
        RotatePairs(grad_o.data() + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                    rotation.sine.Row(row), false);
        float maximum = -std::numeric_limits<float>::infinity();
        for (size_t e = 0; e < seen.size(); ++e) {
          p[e] = DotFloat(query, seen[e].values, width) * scale;
          maximum = std::max(maximum, p[e]);
        }
        const float sink = Exp(parameters.sink[head] - maximum);
        float total = 0, dot = 0;
        for (float& x : p) total += x = Exp(x - maximum);
        total += sink;
        for (size_t e = 0; e < seen.size(); ++e) {
          p[e] /= total;
          grad_p[e] = DotFloat(grad_o.data(), seen[e].values, width);
          dot = std::fma(p[e], grad_p[e], dot);
        }
        grad_sink[head] -= sink / total * dot;
        for (size_t e = 0; e < seen.size(); ++e) {
          const float grad_score = p[e] * (grad_p[e] - dot) * scale;
          float* to_query = grad_q.Row(row) + head * width;
          for (int64_t c = 0; c < width; ++c) {
            to_query[c] = std::fma(grad_score, seen[e].values[c], to_query[c]);
            seen[e].gradient[c] +=
                std::fma(grad_score, query[c], p[e] * grad_o[static_cast<size_t>(c)]);
          }
        }
        if (probabilities == nullptr) continue;
        for (size_t e = first_entry; e < seen.size(); ++e)
          (*probabilities)[static_cast<size_t>(row)][e - first_entry] += p[e];
      }
    }
  }
}

}  // namespace toaster
