#include "model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace toaster {

std::vector<float> RopeFrequencies(int64_t rotary, double base, const RopeScaling* scaling) {
  const auto r = static_cast<double>(rotary);
  std::vector<float> frequencies(static_cast<size_t>(rotary / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    // The exponent is a float in the trained model, and so is the power.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotary);
    frequencies[i] = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  }
  if (scaling == nullptr || scaling->original_max_position_embeddings <= 0) return frequencies;

  const auto correction = [&](double rotations) {
    const auto length = static_cast<double>(scaling->original_max_position_embeddings);
    return r * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  const double low = std::max(std::floor(correction(scaling->beta_fast)), 0.0);
  const double high = std::min(std::ceil(correction(scaling->beta_slow)), r - 1);
  const auto span = static_cast<float>(high != low ? high - low : 0.001);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / span, 0.0f, 1.0f);
    const float keep = 1.0f - ramp, f = frequencies[i];
    frequencies[i] = f / static_cast<float>(scaling->factor) * (1.0f - keep) + f * keep;
  }
  return frequencies;
}

ModelFrequencies::ModelFrequencies(const Config& config)
    : window(RopeFrequencies(config.qk_rope_head_dim, config.rope_theta, nullptr)),
      compressed(RopeFrequencies(config.qk_rope_head_dim, config.compress_rope_theta,
                                 config.rope_scaling ? &*config.rope_scaling : nullptr)) {}

}  // namespace toaster
