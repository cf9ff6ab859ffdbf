#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// YaRN parameters of the compressed layers ("rope_scaling").
struct RopeScaling {
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;

  bool operator==(const RopeScaling&) const = default;
};

/// The architecture of one checkpoint, as its config.json states it. Field names are the keys of
/// the file. A parsed Config is consistent: see Validate().
struct Config {
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_hash_layers = 0;
  int64_t num_nextn_predict_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t q_lora_rank = 0;
  int64_t o_groups = 0;
  int64_t o_lora_rank = 0;
  int64_t sliding_window = 0;
  std::vector<int64_t> compress_ratios;  ///< one per layer, then one per draft block
  double rope_theta = 0;
  double compress_rope_theta = 0;
  std::optional<RopeScaling> rope_scaling;
  int64_t index_n_heads = 0;  ///< the three index_* keys are 0 where no ratio is 4
  int64_t index_head_dim = 0;
  int64_t index_topk = 0;
  int64_t moe_intermediate_size = 0;
  int64_t n_routed_experts = 0;
  int64_t num_experts_per_tok = 0;
  double routed_scaling_factor = 0;
  double swiglu_limit = 0;  ///< 0: no clamp
  int64_t hc_mult = 0;
  int64_t hc_sinkhorn_iters = 0;
  double hc_eps = 0;
  double rms_norm_eps = 0;
  int64_t max_position_embeddings = 0;  ///< 0: the file does not say
  int64_t bos_token_id = -1;            ///< -1: the file does not say
  int64_t eos_token_id = -1;
  /// "fp4", "fp8", or empty if the file says nothing or something unknown; the tensors decide, not
  /// this key.
  std::string expert_dtype;
  /// Whether the file has a quantization_config; each tensor decides for itself, not this key.
  bool quantised = false;

  /// Keys of the file that mean nothing to this program, to be reported. Not written by ToJson().
  std::vector<std::string> unknown_keys;

  /// Reads and checks the text of a config.json. `origin` names the file in messages.
  /// Throws Error(kCorruptFile) for text that is no JSON object, a missing key, a value of the
  /// wrong type or range, or values that contradict each other, and Error(kUnsupported) for a sound
  /// file that asks for something else than this architecture. Every message names the key.
  static Config Parse(std::string_view json, const std::string& origin);
  static Config Load(const std::filesystem::path& file);
  /// The text of a config.json that Parse() reads back to the same Config.
  std::string ToJson() const;
  /// Throws Error(kCorruptFile) if a value is out of range or two contradict each other: input
  /// widths of FP8 and FP4 layers, head sizes, groups, ratios, counts. The ranges also keep every
  /// product of sizes inside an int64_t, so nobody who computes with a valid Config checks again.
  void Validate(const std::string& origin) const;

  /// "v4-flash", "v4-pro" (the released shapes) or "tiny" (four million parameters in layers of
  /// every kind). Throws Error(kInvalidArgument) naming the presets.
  static Config Preset(std::string_view name);

  bool operator==(const Config&) const = default;

  /// Main layers, then draft blocks.
  int64_t total_blocks() const { return num_hidden_layers + num_nextn_predict_layers; }
  int64_t ratio(int64_t block) const { return compress_ratios[static_cast<size_t>(block)]; }
  bool hash_routed(int64_t block) const { return block < num_hash_layers; }
};

}  // namespace toaster
