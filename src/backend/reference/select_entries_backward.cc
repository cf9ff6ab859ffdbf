// The loss that trains the indexer, and its gradients: section 9 and the V3.2 report's indexer
// training, on the chosen entries.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/reference/reference_backward.h"
#include "backend/row_operations.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

void ReferenceBackward::SelectEntries(const Tensor& q, const Tensor& weights,
                                      const Rotation& rotation, std::span<const Segment> segments,
                                      std::span<const PagedRows* const> keys,
                                      const Selection& selection,
                                      const EntryProbabilities& probabilities, IndexLoss& loss,
                                      Tensor& grad_q, Tensor& grad_weights,
                                      std::vector<Tensor>& grad_keys) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const int64_t pairs = rotation.cosine.width();
  const float weight_scale = IndexWeightScale(heads, width);
  grad_q.Reshape({rows, heads, width});
  grad_q.Fill(0);
  grad_weights.Reshape({rows, heads});
  grad_weights.Fill(0);
  grad_keys.resize(segments.size());
  int64_t counted = 0;
  for (const auto& chosen : selection.entries) counted += !chosen.empty();
  const float row_weight = counted == 0 ? 0 : loss.weight / static_cast<float>(counted);
  double total = 0;

  std::vector<uint8_t> code(static_cast<size_t>(KeyBytes(width)));
  std::vector<float> queries(static_cast<size_t>(heads * width));
  Tensor key_values;
  std::vector<float> scores, dots;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t count = keys[s]->size();
    key_values.Reshape({count, width});
    grad_keys[s].Reshape({count, width});
    grad_keys[s].Fill(0);
    for (int64_t j = 0; j < count; ++j) {
      if (official()) {
        DecodeKey(keys[s]->Row(j), width, key_values.Row(j));
      } else {
        std::memcpy(key_values.Row(j), keys[s]->Row(j), static_cast<size_t>(4 * width));
      }
    }
    for (int64_t i = 0; i < segments[s].rows; ++i) {
      const int64_t row = segments[s].first_row + i;
      const std::vector<int32_t>& chosen = selection.entries[static_cast<size_t>(row)];
      const std::vector<float>& probability = probabilities[static_cast<size_t>(row)];
      if (chosen.empty()) continue;
      std::copy_n(q.Row(row), heads * width, queries.data());
      for (int64_t head = 0; quantises() && head < heads; ++head) {
        EncodeKey(queries.data() + head * width, width, code.data());
        DecodeKey(code.data(), width, queries.data() + head * width);
      }
      scores.assign(chosen.size(), 0.0f);
      dots.resize(chosen.size() * static_cast<size_t>(heads));
      for (size_t e = 0; e < chosen.size(); ++e) {
        for (int64_t head = 0; head < heads; ++head) {
          const float dot =
              DotFloat(queries.data() + head * width, key_values.Row(chosen[e]), width);
          dots[e * static_cast<size_t>(heads) + static_cast<size_t>(head)] = dot;
          scores[e] = std::fma(std::max(dot, 0.0f), weights.Row(row)[head], scores[e]);
        }
      }
      const double maximum = *std::max_element(scores.begin(), scores.end());
      double mass = 0, normaliser = 0;
      for (const float score : scores) normaliser += std::exp(score - maximum);
      for (const float p : probability) mass += p;
      mass = std::max(mass, 1e-30);
      double target_sum = 0;
      for (const float p : probability) target_sum += p / mass;
      for (size_t e = 0; e < chosen.size(); ++e) {
        const double target = probability[e] / mass;
        const double log_guess = scores[e] - maximum - std::log(normaliser);
        if (target > 0) total += target * (std::log(target) - log_guess);
        const auto grad_score =
            static_cast<float>(std::exp(log_guess) * target_sum - target) * row_weight;
        for (int64_t head = 0; head < heads; ++head) {
          const float dot = dots[e * static_cast<size_t>(heads) + static_cast<size_t>(head)];
          if (dot <= 0) continue;
          grad_weights.Row(row)[head] += grad_score * dot;
          const float g = grad_score * weights.Row(row)[head];
          const float *query = queries.data() + head * width, *key = key_values.Row(chosen[e]);
          float *to_query = grad_q.Row(row) + head * width, *to_key = grad_keys[s].Row(chosen[e]);
          for (int64_t c = 0; c < width; ++c) {
            to_query[c] = std::fma(g, key[c], to_query[c]);
            to_key[c] = std::fma(g, query[c], to_key[c]);
          }
        }
      }
    }
  }
  loss.value = counted == 0 ? 0 : total / static_cast<double>(counted);

  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      float* g = grad_q.Row(row) + head * width;
      HadamardTransform(g, width);
      RotatePairs(g + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                  rotation.sine.Row(row), true);
      grad_weights.Row(row)[head] *= weight_scale;
    }
  }
}

}  // namespace toaster
