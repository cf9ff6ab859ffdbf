#include "checkpoint/random_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "tensor/number_formats.h"

namespace toaster {
namespace {

// SplitMix64's finaliser: a word that depends on every bit of key and index. Cheaper than Philox,
// which matters for hundreds of gigabytes; weights need no better.
uint64_t Word(uint64_t key, uint64_t index) {
  uint64_t z = key + (index + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

uint64_t KeyOf(const std::string& name, uint64_t seed) {
  uint64_t key = Word(seed, 0);
  for (const char c : name) key = Word(key, static_cast<unsigned char>(c));
  return key;
}

// x with P(X <= x) = p for a standard normal X, by bisection: a few thousand are made at the start.
float NormalQuantile(double p) {
  double low = -10, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return static_cast<float>(low);
}

// Standard deviation of a uniformly drawn E2M1 code: the magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6.
constexpr double kE2m1Deviation = 2.9261749776799064;  // sqrt(68.5 / 8)

// Standard deviation of a linear layer's outputs for inputs of deviation 1. What is added to the
// streams is small, so that they keep their size over many layers.
double LinearGain(const std::string& name) {
  if (name.find(".wo_b.") != std::string::npos || name.find(".w2.") != std::string::npos) {
    return 0.3;
  }
  if (name.find(".wo_a.") != std::string::npos || name.find(".w1.") != std::string::npos ||
      name.find(".w3.") != std::string::npos) {
    return 1.4;
  }
  return 1.0;
}

double Bf16MatrixDeviation(const std::string& name, int64_t inputs) {
  const double unit = 1.0 / std::sqrt(static_cast<double>(inputs));
  if (name == "embed.weight") return 0.8;
  if (name == "head.weight" || name.ends_with("wgate.weight")) return 1.5 * unit;
  if (name.ends_with("weights_proj.weight")) return 2 * unit;
  return unit;
}

// Number `index` of an F32 tensor, from a standard normal draw.
float FloatValue(const TensorSpec& spec, int64_t index, float normal, int64_t streams) {
  if (spec.name.ends_with("_fn")) {
    return normal / std::sqrt(static_cast<float>(spec.columns));
  }
  if (spec.name.ends_with("ape")) return 0.7f * normal;
  if (spec.name.ends_with("attn_sink")) return 1.5f * normal;
  if (spec.name.ends_with("_scale")) return 0.85f + 0.15f * std::clamp(normal, -2.0f, 2.0f);
  if (spec.name.ends_with("_base")) {
    // The last n x n numbers mix the streams; a heavier diagonal keeps each mostly to itself.
    const int64_t mixing = index - 2 * streams;
    const bool diagonal = mixing >= 0 && mixing % (streams + 1) == 0;
    return 0.5f * normal + (diagonal ? 1.5f : 0.0f);
  }
  return 0.05f * normal;  // the router's bias
}

// A scale whose square is `target` squared on average: one of the two powers of two around it.
// Compare with 32 random bits.
struct ScaleDraw {
  int exponent;        // of the smaller one
  uint32_t threshold;  // bits below give the smaller one
};
ScaleDraw DrawFor(double target) {
  const int exponent = static_cast<int>(std::floor(std::log2(target)));
  const double ratio = target * target / std::exp2(2.0 * exponent);  // 1 to 4
  return {exponent, static_cast<uint32_t>((4 - ratio) / 3 * 4294967295.0)};
}

// Calls value(index) for the elements of type T that lie in [offset, offset + out.size()).
template <typename T, typename Value>
void FillElements(int64_t offset, std::span<std::byte> out, Value value) {
  const auto first = offset / static_cast<int64_t>(sizeof(T));
  const auto count = static_cast<int64_t>(out.size() / sizeof(T));
  for (int64_t i = 0; i < count; ++i) {
    const T element = value(first + i);
    std::memcpy(out.data() + i * static_cast<int64_t>(sizeof(T)), &element, sizeof(T));
  }
}

void FillCodes(uint64_t key, int64_t offset, std::span<std::byte> out) {
  auto index = static_cast<uint64_t>(offset) / 8;
  size_t at = 0;
  for (; at + 8 <= out.size(); at += 8) {
    const uint64_t word = Word(key, index++);
    std::memcpy(out.data() + at, &word, 8);
  }
  const uint64_t word = Word(key, index);
  std::memcpy(out.data() + at, &word, out.size() - at);
}

// The first `k` of a random permutation of 0..experts-1 (Floyd's sampling).
void DrawExperts(uint64_t key, int64_t experts, std::span<int64_t> drawn) {
  const auto k = static_cast<int64_t>(drawn.size());
  for (int64_t i = 0; i < k; ++i) {
    const int64_t last = experts - k + i;
    const auto picked =
        static_cast<int64_t>(Word(key, static_cast<uint64_t>(i)) % static_cast<uint64_t>(last + 1));
    const auto end = drawn.begin() + i;
    drawn[static_cast<size_t>(i)] = std::find(drawn.begin(), end, picked) == end ? picked : last;
  }
}

}  // namespace

RandomWeights::RandomWeights(const Config& config, uint64_t seed) : config_(config) {
  for (const TensorSpec& spec : ListTensors(config)) {
    const std::vector<PlannedTensor> stored = StoredTensors(config, spec);
    for (size_t i = 0; i < stored.size(); ++i) {
      recipes_[stored[i].name] = {spec, i == 1, KeyOf(stored[i].name, seed)};
    }
  }
  for (int i = 0; i < 4096; ++i) normal_.push_back(NormalQuantile((i + 0.5) / 4096));
  double squares = 0;
  for (int i = 0; i < 256; ++i) {
    // 64 deviations leave room to the largest code, 448, and to the smallest.
    e4m3_normal_.push_back(FloatToE4m3(64 * NormalQuantile((i + 0.5) / 256)));
    squares += std::pow(E4m3ToFloat(e4m3_normal_.back()), 2);
  }
  e4m3_deviation_ = std::sqrt(squares / 256);
}

void RandomWeights::Fill(const PlannedTensor& tensor, int64_t offset,
                         std::span<std::byte> out) const {
  const auto found = recipes_.find(tensor.name);
  CHECK(found != recipes_.end() && offset % 64 == 0, "{} at {}", tensor.name, offset);
  const Recipe& recipe = found->second;
  const TensorSpec& spec = recipe.spec;
  const uint64_t key = recipe.key;
  const auto normal = [&](int64_t index) {  // four of them to a word
    const auto i = static_cast<uint64_t>(index);
    return normal_[Word(key, i / 4) >> (16 * (i % 4)) & 4095];
  };
  const double unit = 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(spec.columns, 1)));

  if (recipe.is_scale) {
    const bool packed = StoredTensors(config_, spec)[0].type == StoredType::kI8;
    const ScaleDraw draw =
        DrawFor(LinearGain(spec.name) * unit / (packed ? kE2m1Deviation : e4m3_deviation_));
    const auto exponent = [&](int64_t index) {
      const auto bits = static_cast<uint32_t>(Word(key, static_cast<uint64_t>(index)));
      return draw.exponent + (bits < draw.threshold ? 0 : 1);
    };
    if (tensor.type == StoredType::kF32) {
      FillElements<float>(offset, out, [&](int64_t i) { return std::ldexp(1.0f, exponent(i)); });
    } else {
      FillElements<uint8_t>(offset, out,
                            [&](int64_t i) { return static_cast<uint8_t>(exponent(i) + 127); });
    }
    return;
  }
  switch (tensor.type) {
    case StoredType::kI8:
      return FillCodes(key, offset, out);
    case StoredType::kF8E4m3:
      FillCodes(key, offset, out);
      for (std::byte& code : out) {
        code = static_cast<std::byte>(e4m3_normal_[static_cast<uint8_t>(code)]);
      }
      return;
    case StoredType::kBf16: {
      if (spec.role == TensorRole::kNorm) {
        return FillElements<uint16_t>(offset, out, [&](int64_t i) {
          return FloatToBf16(1 + std::clamp(0.2f * normal(i), -0.6f, 0.6f));
        });
      }
      const auto deviation = static_cast<float>(spec.role == TensorRole::kBf16Matrix
                                                    ? Bf16MatrixDeviation(spec.name, spec.columns)
                                                    : LinearGain(spec.name) * unit);
      return FillElements<uint16_t>(offset, out,
                                    [&](int64_t i) { return FloatToBf16(deviation * normal(i)); });
    }
    case StoredType::kF32:
      return FillElements<float>(
          offset, out, [&](int64_t i) { return FloatValue(spec, i, normal(i), config_.hc_mult); });
    case StoredType::kI64: {
      std::vector<int64_t> drawn(static_cast<size_t>(spec.columns));
      int64_t drawn_row = -1;
      return FillElements<int64_t>(offset, out, [&](int64_t i) {
        if (i / spec.columns != drawn_row) {
          drawn_row = i / spec.columns;
          DrawExperts(Word(key, static_cast<uint64_t>(drawn_row)), config_.n_routed_experts, drawn);
        }
        return drawn[static_cast<size_t>(i % spec.columns)];
      });
    }
    default:
      CHECK(false, "{} {}", tensor.name, StoredTypeName(tensor.type));
  }
}

}  // namespace toaster
