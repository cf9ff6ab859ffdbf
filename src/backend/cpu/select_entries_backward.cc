// The loss that trains the indexer, and its gradients: see ReferenceBackward::SelectEntries.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_backward.h"
#include "backend/row_operations.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kRows = 32;  // of a chunk, whose key gradients have a buffer of their own
constexpr int64_t kWave = 16;  // chunks at a time

// A chunk of one segment's rows.
struct Chunk {
  size_t segment = 0;
  int64_t begin = 0, end = 0;  // rows of the segment
};

}  // namespace

void CpuBackward::SelectEntries(const Tensor& q, const Tensor& weights, const Rotation& rotation,
                                std::span<const Segment> segments,
                                std::span<const PagedRows* const> keys, const Selection& selection,
                                const EntryProbabilities& probabilities, IndexLoss& loss,
                                Tensor& grad_q, Tensor& grad_weights,
                                std::vector<Tensor>& grad_keys) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const int64_t pairs = rotation.cosine.width();
  const float weight_scale = IndexWeightScale(heads, width);
  grad_q.Reshape({rows, heads, width});
  grad_weights.Reshape({rows, heads});
  grad_keys.resize(segments.size());
  int64_t counted = 0;
  for (const auto& chosen : selection.entries) counted += !chosen.empty();
  const float row_weight = counted == 0 ? 0 : loss.weight / static_cast<float>(counted);

  std::vector<Tensor> key_values(segments.size());
  std::vector<Chunk> chunks;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t count = keys[s]->size();
    key_values[s].Reshape({count, width});
    grad_keys[s].Reshape({count, width});
    grad_keys[s].Fill(0);
    ForRows(count, 16, [&](int64_t j) {
      if (official()) {
        DecodeKey(keys[s]->Row(j), width, key_values[s].Row(j));
      } else {
        std::memcpy(key_values[s].Row(j), keys[s]->Row(j), static_cast<size_t>(4 * width));
      }
    });
    for (int64_t begin = 0; begin < segments[s].rows; begin += kRows)
      chunks.push_back({s, begin, std::min(begin + kRows, segments[s].rows)});
  }

  std::vector<double> row_losses(static_cast<size_t>(rows), 0.0);
  const auto run_row = [&](int64_t row, size_t s, float* to_keys) {
    const std::vector<int32_t>& chosen = selection.entries[static_cast<size_t>(row)];
    const std::vector<float>& probability = probabilities[static_cast<size_t>(row)];
    std::fill_n(grad_q.Row(row), heads * width, 0.0f);
    std::fill_n(grad_weights.Row(row), heads, 0.0f);
    if (chosen.empty()) return;
    std::vector<float> queries(q.Row(row), q.Row(row) + heads * width), scores(chosen.size(), 0.0f),
        dots(chosen.size() * static_cast<size_t>(heads));
    std::vector<uint8_t> code(static_cast<size_t>(KeyBytes(width)));
    for (int64_t head = 0; official() && head < heads; ++head) {
      EncodeKey(queries.data() + head * width, width, code.data());
      DecodeKey(code.data(), width, queries.data() + head * width);
    }
    for (size_t e = 0; e < chosen.size(); ++e) {
      for (int64_t head = 0; head < heads; ++head) {
        const float dot =
            DotFloat(queries.data() + head * width, key_values[s].Row(chosen[e]), width);
        dots[e * static_cast<size_t>(heads) + static_cast<size_t>(head)] = dot;
        scores[e] = std::fma(std::max(dot, 0.0f), weights.Row(row)[head], scores[e]);
      }
    }
    const double maximum = *std::max_element(scores.begin(), scores.end());
    double mass = 0, normaliser = 0, target_sum = 0, total = 0;
    for (const float score : scores) normaliser += std::exp(score - maximum);
    const double log_normaliser = std::log(normaliser);
    for (const float p : probability) mass += p;
    mass = std::max(mass, 1e-30);
    for (const float p : probability) target_sum += p / mass;
    for (size_t e = 0; e < chosen.size(); ++e) {
      const double target = probability[e] / mass;
      const double log_guess = scores[e] - maximum - log_normaliser;
      if (target > 0) total += target * (std::log(target) - log_guess);
      const auto grad_score =
          static_cast<float>(std::exp(log_guess) * target_sum - target) * row_weight;
      const float* key = key_values[s].Row(chosen[e]);
      float* to_key = to_keys + chosen[e] * width;
      for (int64_t head = 0; head < heads; ++head) {
        const float dot = dots[e * static_cast<size_t>(heads) + static_cast<size_t>(head)];
        if (dot <= 0) continue;
        grad_weights.Row(row)[head] += grad_score * dot;
        const float g = grad_score * weights.Row(row)[head];
        const float* query = queries.data() + head * width;
        float* to_query = grad_q.Row(row) + head * width;
        for (int64_t c = 0; c < width; ++c) {
          to_query[c] = std::fma(g, key[c], to_query[c]);
          to_key[c] = std::fma(g, query[c], to_key[c]);
        }
      }
    }
    row_losses[static_cast<size_t>(row)] = total;
    for (int64_t head = 0; head < heads; ++head) {
      float* g = grad_q.Row(row) + head * width;
      HadamardTransform(g, width);
      RotatePairs(g + width - 2 * pairs, 2 * pairs, rotation.cosine.Row(row),
                  rotation.sine.Row(row), true);
      grad_weights.Row(row)[head] *= weight_scale;
    }
  };

  std::vector<Tensor> buffers(kWave);
  for (size_t wave = 0; wave < chunks.size(); wave += kWave) {
    const size_t count = std::min<size_t>(kWave, chunks.size() - wave);
    ForRows(static_cast<int64_t>(count), 1, [&](int64_t i) {
      const Chunk& chunk = chunks[wave + static_cast<size_t>(i)];
      Tensor& buffer = buffers[static_cast<size_t>(i)];
      buffer.Reshape({key_values[chunk.segment].rows(), width});
      buffer.Fill(0);
      for (int64_t row = chunk.begin; row < chunk.end; ++row)
        run_row(segments[chunk.segment].first_row + row, chunk.segment, buffer.data());
    });
    for (size_t i = 0; i < count; ++i) {
      Tensor& to = grad_keys[chunks[wave + i].segment];
      ForRows(to.rows(), 64, [&](int64_t j) {
        for (int64_t c = 0; c < width; ++c) to.Row(j)[c] += buffers[i].Row(j)[c];
      });
    }
  }
  double total = 0;
  for (const double one : row_losses) total += one;
  loss.value = counted == 0 ? 0 : total / static_cast<double>(counted);
}

}  // namespace toaster
