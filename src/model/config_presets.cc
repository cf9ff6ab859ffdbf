#include <fmt/format.h>

#include "base/error.h"
#include "model/config.h"

namespace toaster {
namespace {

// What all members of the family share.
Config Common() {
  Config c;
  c.vocab_size = 129280;
  c.num_nextn_predict_layers = 1;
  c.head_dim = 512;
  c.qk_rope_head_dim = 64;
  c.o_lora_rank = 1024;
  c.sliding_window = 128;
  c.rope_theta = 10000;
  c.compress_rope_theta = 160000;
  c.rope_scaling = RopeScaling{16, 65536, 32, 1};
  c.num_hash_layers = 3;
  c.index_n_heads = 64;
  c.index_head_dim = 128;
  c.num_experts_per_tok = 6;
  c.swiglu_limit = 10;
  c.hc_mult = 4;
  c.hc_sinkhorn_iters = 20;
  c.hc_eps = 1e-6;
  c.rms_norm_eps = 1e-6;
  c.max_position_embeddings = 1048576;
  c.bos_token_id = 0;
  c.eos_token_id = 1;
  c.expert_dtype = "fp4";
  c.quantised = true;
  return c;
}

// The first two layers, then 4 and 128 in turn from 4 to 4, then the draft block.
std::vector<int64_t> ReleasedRatios(int64_t first_two, int64_t layers) {
  std::vector<int64_t> ratios = {first_two, first_two};
  for (int64_t layer = 2; layer < layers; ++layer) ratios.push_back(layer % 2 == 0 ? 4 : 128);
  ratios.push_back(0);
  return ratios;
}

Config Flash() {
  Config c = Common();
  c.hidden_size = 4096;
  c.num_hidden_layers = 43;
  c.compress_ratios = ReleasedRatios(0, 43);
  c.num_attention_heads = 64;
  c.q_lora_rank = 1024;
  c.o_groups = 8;
  c.index_topk = 512;
  c.moe_intermediate_size = 2048;
  c.n_routed_experts = 256;
  c.routed_scaling_factor = 1.5;
  return c;
}

Config Pro() {
  Config c = Common();
  c.hidden_size = 7168;
  c.num_hidden_layers = 61;
  c.compress_ratios = ReleasedRatios(128, 61);
  c.num_attention_heads = 128;
  c.q_lora_rank = 1536;
  c.o_groups = 16;
  c.index_topk = 1024;
  c.moe_intermediate_size = 3072;
  c.n_routed_experts = 384;
  c.routed_scaling_factor = 2.5;
  return c;
}

// Every kind of layer at the smallest sensible sizes.
Config Tiny() {
  Config c = Common();
  c.vocab_size = 512;
  c.hidden_size = 256;
  c.num_hidden_layers = 4;
  c.compress_ratios = {0, 4, 128, 4, 0};
  c.num_hash_layers = 1;
  c.num_attention_heads = 4;
  c.head_dim = 96;
  c.qk_rope_head_dim = 32;
  c.q_lora_rank = 128;
  c.o_groups = 2;
  c.o_lora_rank = 64;
  c.sliding_window = 128;
  c.rope_scaling = RopeScaling{16, 4096, 32, 1};
  c.index_n_heads = 4;
  c.index_head_dim = 32;
  c.index_topk = 64;
  c.moe_intermediate_size = 128;
  c.n_routed_experts = 4;
  c.num_experts_per_tok = 2;
  c.routed_scaling_factor = 1.5;
  c.max_position_embeddings = 65536;
  return c;
}

}  // namespace

Config Config::Preset(std::string_view name) {
  if (name == "v4-flash") return Flash();
  if (name == "v4-pro") return Pro();
  if (name == "tiny") return Tiny();
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("no preset '{}'; there are v4-flash, v4-pro and tiny", name));
}

}  // namespace toaster
