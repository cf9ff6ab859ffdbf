#include "engine/speed_estimate.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/official_layout.h"
#include "engine/expert_store.h"
#include "model/cache_size.h"
#include "model/parameter_count.h"

namespace toaster {

namespace {

// Weights outside of routed experts that a decoded token reads: no embedding table, no routing
// tables, no draft blocks.
double DenseBytesPerToken(const Config& config) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : ListTensors(config)) {
    if (spec.routed_expert || spec.role == TensorRole::kIndexTable || spec.name == "embed.weight" ||
        spec.block >= config.num_hidden_layers) {
      continue;
    }
    for (const PlannedTensor& tensor : StoredTensors(config, spec)) bytes += tensor.bytes();
  }
  return static_cast<double>(bytes);
}

// Entries that a token at `depth` attends to in one layer, and index keys that it scores.
struct Attended {
  double entries = 0, keys = 0;
};

Attended AttendedAt(const Config& config, int64_t layer, double depth) {
  Attended attended{std::min(depth, static_cast<double>(config.sliding_window)), 0};
  const int64_t ratio = config.ratio(layer);
  if (ratio == 0) return attended;
  const double compressed = depth / static_cast<double>(ratio);
  if (ratio == 4) {
    attended.keys = compressed;
    attended.entries += std::min(compressed, static_cast<double>(config.index_topk));
  } else {
    attended.entries += compressed;
  }
  return attended;
}

double CacheBytesPerStep(const Config& config, int64_t depth) {
  double bytes = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const Attended attended = AttendedAt(config, layer, static_cast<double>(depth));
    bytes += attended.entries * static_cast<double>(CacheEntryBytes(config));
    if (attended.keys > 0) bytes += attended.keys * static_cast<double>(IndexKeyBytes(config));
  }
  return bytes;
}

// Additions and multiplications of a token's attention at `depth`.
double AttentionFlops(const Config& config, double depth) {
  double flops = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const Attended attended = AttendedAt(config, layer, depth);
    flops +=
        4 * attended.entries * static_cast<double>(config.num_attention_heads * config.head_dim);
    flops += 2 * attended.keys * static_cast<double>(config.index_n_heads * config.index_head_dim);
  }
  return flops;
}

}  // namespace

SpeedEstimate EstimateSpeed(const Config& config, const WeightSizes& sizes, const MemoryPlan& plan,
                            const SpeedLimits& limits, const SpeedPoint& point,
                            const ReachedShares& reached) {
  SpeedEstimate estimate;
  if (sizes.experts > 0) {
    estimate.hit_share =
        static_cast<double>(plan.experts_kept) / static_cast<double>(sizes.experts);
  }
  const double miss = 1 - estimate.hit_share;
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const auto expert_bytes = static_cast<double>(sizes.expert_bytes);
  const double routed = layers * static_cast<double>(config.num_experts_per_tok) * expert_bytes;
  const double read = reached.decode_read * limits.machine.read_bytes_per_s;
  const double disk = limits.disk_bytes_per_s;
  const double compute = reached.prefill_compute * limits.machine.bf16_flops_per_s;

  const double dense = DenseBytesPerToken(config);
  estimate.memory_bytes_per_token = dense + routed + CacheBytesPerStep(config, point.depth);
  estimate.disk_bytes_per_token = miss * routed;
  const bool disk_known = estimate.disk_bytes_per_token == 0 || disk > 0;
  if (read > 0 && disk_known) {
    // Forecasts keep the disk busy while blocks are computed; it rests while the head is.
    const double all = estimate.memory_bytes_per_token / read;
    const double head = 2 * static_cast<double>(config.vocab_size * config.hidden_size) / read;
    const double from_disk =
        estimate.disk_bytes_per_token > 0 ? estimate.disk_bytes_per_token / disk : 0;
    estimate.decode_tokens_per_s = 1 / std::max(all, from_disk + head);
  }

  if (point.prompt <= 0 || compute <= 0 || !disk_known) return estimate;
  // Of a prompt's logits, only the last token's are computed.
  const double product_flops = 2 * static_cast<double>(CountParameters(config).active -
                                                       config.vocab_size * config.hidden_size);
  double seconds = 0;
  for (int64_t first = 0; first < point.prompt; first += plan.chunk) {
    const auto tokens = static_cast<double>(std::min(plan.chunk, point.prompt - first));
    const double depth = static_cast<double>(first) + tokens / 2;
    // Experts of a layer that any of the tokens chooses.
    const auto all = static_cast<double>(config.n_routed_experts);
    const double chosen =
        all * (1 - std::pow(1 - static_cast<double>(config.num_experts_per_tok) / all, tokens));
    // Of a wide pass, part of the memory is for experts that do not stay.
    double kept = static_cast<double>(plan.experts_kept);
    if (ExpertStore::IsWide(config, static_cast<int64_t>(tokens) * config.num_experts_per_tok))
      kept -= static_cast<double>(ExpertStore::MostPassing(config, plan.experts_kept));
    const double missed = miss > 0 ? 1 - kept / static_cast<double>(sizes.experts) : 0;
    const double bytes = missed * layers * chosen * expert_bytes;
    estimate.prefill_disk_bytes += bytes;
    const double computing =
        std::max(tokens * (product_flops + AttentionFlops(config, depth)) / compute,
                 read > 0 ? (dense + layers * chosen * expert_bytes) / read : 0);
    const double reading = bytes > 0 ? bytes / disk : 0;
    seconds +=
        std::max(computing, reading) + (1 - reached.prefill_overlap) * std::min(computing, reading);
  }
  estimate.first_token_seconds = seconds;
  estimate.prefill_tokens_per_s = static_cast<double>(point.prompt) / seconds;
  return estimate;
}

}  // namespace toaster
