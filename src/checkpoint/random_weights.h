#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/official_layout.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// Random weights of any size, made where they are needed: every number depends on the seed, the
/// tensor's name and its place alone.
///
/// Distributions are those of an untrained but well-behaved model: rows of linear layers have a
/// standard deviation of about 1/sqrt(inputs), norms lie around 1, streams mix mostly with
/// themselves, so activations stay finite and ordinary at any depth. Quantised matrices are drawn
/// as codes and scales, never rounded. Safe to use from any thread.
class RandomWeights {
 public:
  RandomWeights(const Config& config, uint64_t seed);

  /// Writes bytes [offset, offset + out.size()) of `tensor`, one of StoredTensors(config, ...).
  /// `offset` is a multiple of 64. A TensorSource.
  void Fill(const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) const;

 private:
  struct Recipe {
    TensorSpec spec;
    bool is_scale = false;
    uint64_t key = 0;
  };

  const Config config_;
  std::unordered_map<std::string, Recipe> recipes_;
  std::vector<float> normal_;         // 4096 quantiles of the standard normal distribution
  std::vector<uint8_t> e4m3_normal_;  // 256 codes of a normal distribution
  double e4m3_deviation_ = 0;         // and its standard deviation
};

}  // namespace toaster
