#include "train/initialise_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/check.h"
#include "base/random.h"

namespace toaster {

namespace {

constexpr float kGate = 0.01f;     // hc_*_scale
constexpr float kDiagonal = 4.0f;  // of the mixing matrix, before Sinkhorn

// Philox keys: the seed is one half, what is drawn the other.
constexpr uint64_t kNormals = uint64_t{1} << 32, kTables = uint64_t{2} << 32;

bool EndsWith(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

// Box and Muller, in double: one number per counter.
float Normal(uint64_t seed, uint64_t counter, uint64_t tensor) {
  const auto bits = Philox(seed ^ kNormals, counter, tensor);
  const double u = 1 - UniformDouble(bits[0], bits[1]);  // in (0, 1]
  const double v = UniformDouble(bits[2], bits[3]);
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

// Experts without repetition: the first numbers of a random permutation of all.
void FillTable(std::span<uint8_t> table, int64_t tokens, int64_t chosen, int64_t experts,
               uint64_t seed, uint64_t block) {
  CHECK(chosen <= experts, "{} of {}", chosen, experts);
  std::vector<int64_t> order(static_cast<size_t>(experts));
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t e = 0; e < experts; ++e) order[static_cast<size_t>(e)] = e;
    for (int64_t i = 0; i < chosen; ++i) {
      const auto random = Philox(seed ^ kTables, static_cast<uint64_t>(token),
                                 block << 32 | static_cast<uint64_t>(i));
      const auto other = i + static_cast<int64_t>(random[0] % static_cast<uint64_t>(experts - i));
      std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(other)]);
      std::memcpy(table.data() + 8 * (token * chosen + i), &order[static_cast<size_t>(i)], 8);
    }
  }
}

}  // namespace

void InitialiseWeights(TrainedWeights& weights, uint64_t seed, double deviation) {
  const Config& config = weights.config();
  const auto residual = static_cast<float>(
      deviation / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers)));
  ParameterArrays& masters = weights.masters();
  for (size_t p = 0; p < masters.parts().size(); ++p) {
    const ParameterArrays::Part& part = masters.parts()[p];
    const std::span<float> values = masters.Values(part);
    const std::string& name = part.spec.name;
    std::fill(values.begin(), values.end(), 0.0f);
    if (part.spec.role == TensorRole::kNorm) {
      std::fill(values.begin(), values.end(), 1.0f);
    } else if (EndsWith(name, "_scale")) {
      std::fill(values.begin(), values.end(), kGate);
    } else if (EndsWith(name, "_base") && part.spec.rows > config.hc_mult) {
      // pre and post, then the mixing matrix by rows.
      for (int64_t i = 0; i < config.hc_mult; ++i)
        values[static_cast<size_t>((2 + i) * config.hc_mult + i)] = kDiagonal;
    } else if (part.spec.columns > 0 && !EndsWith(name, ".ape")) {
      const bool writes = EndsWith(name, "wo_b.weight") || EndsWith(name, "w2.weight");
      const float scale = writes ? residual : static_cast<float>(deviation);
      for (size_t i = 0; i < values.size(); ++i) values[i] = scale * Normal(seed, i, p);
    }
  }
  for (int64_t block = 0; block < config.total_blocks(); ++block) {
    std::ranges::fill(weights.RouterBias(block), 0.0f);
    const std::span<uint8_t> table = weights.HashTable(block);
    if (table.empty()) continue;
    FillTable(table, config.vocab_size, config.num_experts_per_tok, config.n_routed_experts, seed,
              static_cast<uint64_t>(block));
  }
}

}  // namespace toaster
