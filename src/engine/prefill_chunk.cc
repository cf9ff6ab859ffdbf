#include "engine/prefill_chunk.h"

#include <algorithm>

namespace toaster {

int64_t WorkspaceBytesPerToken(const Config& config, bool shared) {
  constexpr int64_t kFloat = 4, kBf16 = 2;
  const int64_t width = config.hidden_size, inner = config.moe_intermediate_size;
  const int64_t streams = (shared ? 2 : 1) * config.hc_mult * width * kFloat;
  const int64_t sub_layer = 3 * width * kFloat;  // read, normed, written
  const int64_t heads = config.num_attention_heads * config.head_dim;
  const int64_t attention = heads * (2 * kFloat + kBf16) +  // queries, attended, attended again
                            config.index_n_heads * config.index_head_dim *
                                (kFloat + 2) +  // as floats, as codes of two forms
                            (config.q_lora_rank + config.o_groups * config.o_lora_rank) * kFloat;
  const int64_t slots = config.num_experts_per_tok + 1;
  const int64_t experts = slots * (width * (kBf16 + kFloat) + inner * (kFloat + kBf16));
  return streams + sub_layer + attention + experts;
}

int64_t PrefillChunk(const Config& config, int64_t available) {
  constexpr int64_t kMost = 2048, kLeast = 64;
  if (available <= 0) return kMost / 4;
  const int64_t tokens = available / 8 / WorkspaceBytesPerToken(config);
  return std::clamp(tokens / kLeast * kLeast, kLeast, kMost);
}

int64_t ServingChunk(const Config& config) {
  constexpr int64_t kTokensOfExpert = 12, kLeast = 64;
  return std::max(kTokensOfExpert * config.n_routed_experts / config.num_experts_per_tok, kLeast);
}

}  // namespace toaster
