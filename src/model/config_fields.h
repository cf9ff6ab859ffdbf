#pragma once

// The plain keys of a config.json, once: Parse, Validate and ToJson walk this list.

#include <cstdint>

#include "model/config.h"

namespace toaster::internal {

/// Calls visit(key, field, smallest, largest) for every number that a config.json must have and
/// that is not one of the three index_* keys; fields are int64_t or double. The largest values
/// leave an order of magnitude above the released models and, with the limits of
/// Config::Validate, keep the bytes of a whole model below 2^62.
template <typename ConfigType, typename Visitor>
void VisitRequiredNumbers(ConfigType& c, Visitor&& visit) {
  constexpr int64_t kWidest = int64_t{1} << 18;
  visit("vocab_size", c.vocab_size, int64_t{1}, int64_t{1} << 24);
  visit("hidden_size", c.hidden_size, int64_t{1}, kWidest);
  visit("num_hidden_layers", c.num_hidden_layers, int64_t{1}, int64_t{1024});
  visit("num_hash_layers", c.num_hash_layers, int64_t{0}, int64_t{1024});
  visit("num_attention_heads", c.num_attention_heads, int64_t{1}, int64_t{4096});
  visit("head_dim", c.head_dim, int64_t{1}, int64_t{16384});
  visit("qk_rope_head_dim", c.qk_rope_head_dim, int64_t{2}, int64_t{16384});
  visit("q_lora_rank", c.q_lora_rank, int64_t{1}, kWidest);
  visit("o_groups", c.o_groups, int64_t{1}, int64_t{4096});
  visit("o_lora_rank", c.o_lora_rank, int64_t{1}, int64_t{16384});
  visit("sliding_window", c.sliding_window, int64_t{1}, int64_t{1} << 20);
  visit("moe_intermediate_size", c.moe_intermediate_size, int64_t{1}, kWidest);
  visit("n_routed_experts", c.n_routed_experts, int64_t{1}, int64_t{16384});
  visit("num_experts_per_tok", c.num_experts_per_tok, int64_t{1}, int64_t{256});
  visit("hc_mult", c.hc_mult, int64_t{1}, int64_t{8});
  visit("hc_sinkhorn_iters", c.hc_sinkhorn_iters, int64_t{1}, int64_t{1000});
  visit("rope_theta", c.rope_theta, 1.001, 1e18);
  visit("compress_rope_theta", c.compress_rope_theta, 1.001, 1e18);
  visit("routed_scaling_factor", c.routed_scaling_factor, 1e-6, 1e6);
  visit("swiglu_limit", c.swiglu_limit, 0.0, 1e30);
  visit("hc_eps", c.hc_eps, 0.0, 1.0);
  visit("rms_norm_eps", c.rms_norm_eps, 1e-30, 1.0);
}

/// The same for the keys of the indexer, which a model without ratio-4 layers does not need.
template <typename ConfigType, typename Visitor>
void VisitIndexNumbers(ConfigType& c, Visitor&& visit) {
  visit("index_n_heads", c.index_n_heads, int64_t{1}, int64_t{4096});
  visit("index_head_dim", c.index_head_dim, int64_t{32}, int64_t{512});
  visit("index_topk", c.index_topk, int64_t{1}, int64_t{1} << 20);
}

}  // namespace toaster::internal
