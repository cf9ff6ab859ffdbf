#pragma once

#include <vector>

#include "model/config.h"

namespace toaster {

/// Radians per position of each rotation pair, for a base and optional YaRN parameters
/// (section 6).
std::vector<float> RopeFrequencies(int64_t rotary, double base, const RopeScaling* scaling);

/// The two tables of a model: layers of ratio 0, and compressed layers.
struct ModelFrequencies {
  explicit ModelFrequencies(const Config& config);
  const std::vector<float>& ForRatio(int64_t ratio) const {
    return ratio == 0 ? window : compressed;
  }

  std::vector<float> window;
  std::vector<float> compressed;
};

}  // namespace toaster
