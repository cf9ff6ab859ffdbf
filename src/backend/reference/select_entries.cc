// The indexer, section 9.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kRatio = 4;
constexpr int64_t kBlock = 32;

// <q, k> for two vectors of E2M1 values with a scale per block: the blocks' exact sums added in
// order.
float BlockDot(const uint8_t* q, const uint8_t* k, int64_t width) {
  const auto doubled = [](const uint8_t* key, int64_t i) {
    return static_cast<int>(2 * E2m1ToFloat(i % 2 ? key[i / 2] >> 4 : key[i / 2] & 15));
  };
  float dot = 0;
  for (int64_t block = 0; block < width / kBlock; ++block) {
    int sum = 0;
    for (int64_t i = block * kBlock; i < (block + 1) * kBlock; ++i)
      sum += doubled(q, i) * doubled(k, i);
    const float q_scale = E8m0ToFloat(q[width / 2 + block]) * 0.25f;
    const float k_scale = E8m0ToFloat(k[width / 2 + block]);
    dot += static_cast<float>(sum) * (q_scale * k_scale);
  }
  return dot;
}

}  // namespace

void ReferenceBackend::SelectEntries(Tensor& q, Tensor& weights, const Rotation& rotation,
                                     std::span<const Segment> segments,
                                     std::span<const PagedRows* const> keys, int64_t topk,
                                     Selection& selection, Tensor* scores) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const float weight_scale = IndexWeightScale(heads, width);
  std::vector<uint8_t> codes(static_cast<size_t>(rows * heads * KeyBytes(width)));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      float* x = q.Row(row) + head * width;
      PrepareIndexHead(x, width, rotation.cosine.Row(row), rotation.sine.Row(row),
                       rotation.cosine.width(), official());
      uint8_t* code = codes.data() + (row * heads + head) * KeyBytes(width);
      if (quantises()) EncodeKey(x, width, code);
      if (quantises() && !official()) DecodeKey(code, width, x);
      float& w = weights.Row(row)[head];
      w = Round(w * weight_scale);
    }
  }

  int64_t most = 0;
  for (const PagedRows* rows_of : keys) most = std::max(most, rows_of->size());
  if (scores != nullptr) {
    scores->Reshape({rows, most});
    scores->Fill(-std::numeric_limits<float>::infinity());
  }
  selection.all = false;
  selection.entries.assign(static_cast<size_t>(rows), {});
  std::vector<float> row_scores(static_cast<size_t>(most)), key_values(static_cast<size_t>(width));
  for (size_t s = 0; s < segments.size(); ++s) {
    for (int64_t i = 0; i < segments[s].rows; ++i) {
      const int64_t row = segments[s].first_row + i;
      const int64_t visible = (segments[s].start + i + 1) / kRatio;
      for (int64_t entry = 0; entry < visible; ++entry) {
        const uint8_t* key = keys[s]->Row(entry);
        float lanes[kLanes] = {};
        for (int64_t head = 0; head < heads; ++head) {
          float dot;
          if (official()) {
            dot = BlockDot(codes.data() + (row * heads + head) * KeyBytes(width), key, width);
          } else {
            std::memcpy(key_values.data(), key, static_cast<size_t>(4 * width));
            dot = DotFloat(q.Row(row) + head * width, key_values.data(), width);
          }
          const float positive = std::max(Round(dot), 0.0f);
          lanes[head % kLanes] += Round(positive * weights.Row(row)[head]);
        }
        row_scores[static_cast<size_t>(entry)] = Round(FoldLanes(lanes));
      }
      if (scores != nullptr) std::copy_n(row_scores.data(), visible, scores->Row(row));

      SelectTop(row_scores.data(), visible, topk, selection.entries[static_cast<size_t>(row)]);
    }
  }
}

}  // namespace toaster
