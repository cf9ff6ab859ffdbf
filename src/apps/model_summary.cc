#include "apps/model_summary.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "model/cache_size.h"
#include "model/parameter_count.h"

namespace toaster {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLengths[] = {4096, 131072, 1048576};

std::string RoleOf(const Config& config, const TensorSpec& spec) {
  const auto has = [&](const char* part) { return spec.name.find(part) != std::string::npos; };
  if (spec.block >= config.num_hidden_layers) return "draft blocks";
  if (spec.name == "embed.weight") return "embedding";
  if (spec.name == "head.weight") return "head";
  if (spec.routed_expert) return "routed experts";
  if (has("shared_experts.")) return "shared experts";
  if (has("ffn.gate.")) return "routing";
  if (has("hc_")) return "hyper-connections";
  if (has("compressor.") || has("indexer.")) return "compressors and indexers";
  if (has("attn.")) return "attention";
  return "norms";
}

// How a matrix is stored, in the field's terms.
std::string FormatOf(const SummaryTensor& tensor) {
  switch (tensor.stored[0].type) {
    case StoredType::kI8:
    case StoredType::kU8:
      return "FP4";
    case StoredType::kF8E4m3:
      return "FP8";
    default:
      return std::string(StoredTypeName(tensor.stored[0].type));
  }
}

int64_t BytesOf(const SummaryTensor& tensor) {
  int64_t bytes = 0;
  for (const PlannedTensor& stored : tensor.stored) bytes += stored.bytes();
  return bytes;
}

struct Block {
  std::string name;  // "12" or "mtp.0"
  int64_t ratio = 0;
  bool hash_routed = false;
  std::string linear_format;  // of the attention
  std::string expert_format;
  int64_t parameters = 0;
  int64_t tensors = 0;
  int64_t bytes = 0;

  bool SameKind(const Block& other) const {
    return ratio == other.ratio && hash_routed == other.hash_routed &&
           linear_format == other.linear_format && expert_format == other.expert_format &&
           parameters == other.parameters && tensors == other.tensors && bytes == other.bytes;
  }
};

std::vector<Block> BlocksOf(const ModelSummary& summary) {
  const Config& config = summary.config;
  std::vector<Block> blocks(static_cast<size_t>(config.total_blocks()));
  for (int64_t i = 0; i < config.total_blocks(); ++i) {
    Block& block = blocks[static_cast<size_t>(i)];
    block.name = i < config.num_hidden_layers ? fmt::format("{}", i)
                                              : fmt::format("mtp.{}", i - config.num_hidden_layers);
    block.ratio = config.ratio(i);
    block.hash_routed = config.hash_routed(i);
  }
  for (const SummaryTensor& tensor : summary.tensors) {
    if (tensor.spec.block < 0) continue;
    Block& block = blocks[static_cast<size_t>(tensor.spec.block)];
    block.parameters += ParametersOf(tensor.spec);
    block.tensors += static_cast<int64_t>(tensor.stored.size());
    block.bytes += BytesOf(tensor);
    if (tensor.spec.name.ends_with("attn.wq_a.weight")) block.linear_format = FormatOf(tensor);
    if (tensor.spec.name.ends_with("experts.0.w1.weight")) block.expert_format = FormatOf(tensor);
  }
  return blocks;
}

struct Share {
  int64_t tensors = 0;
  int64_t bytes = 0;
};

std::map<std::string, Share> SharesByRole(const ModelSummary& summary) {
  std::map<std::string, Share> shares;
  for (const SummaryTensor& tensor : summary.tensors) {
    Share& share = shares[RoleOf(summary.config, tensor.spec)];
    share.tensors += static_cast<int64_t>(tensor.stored.size());
    share.bytes += BytesOf(tensor);
  }
  return shares;
}

std::map<std::string, Share> SharesByType(const ModelSummary& summary) {
  std::map<std::string, Share> shares;
  for (const SummaryTensor& tensor : summary.tensors) {
    for (const PlannedTensor& stored : tensor.stored) {
      Share& share = shares[std::string(StoredTypeName(stored.type))];
      ++share.tensors;
      share.bytes += stored.bytes();
    }
  }
  return shares;
}

Share Total(const std::map<std::string, Share>& shares) {
  Share total;
  for (const auto& [name, share] : shares) {
    total.tensors += share.tensors;
    total.bytes += share.bytes;
  }
  return total;
}

ordered_json SharesJson(const std::map<std::string, Share>& shares) {
  ordered_json object = ordered_json::object();
  for (const auto& [name, share] : shares) {
    object[name] = {{"tensors", share.tensors}, {"bytes", share.bytes}};
  }
  return object;
}

std::string AttentionText(const Config& config, int64_t ratio) {
  if (ratio == 0) return "window";
  if (ratio == 4) return fmt::format("window, 1 of 4, best {}", config.index_topk);
  return fmt::format("window, 1 of {}", ratio);
}

// "0-1", "3-41 by 2" or "4, 9": the layers of one kind.
std::string LayersText(const std::vector<int64_t>& layers) {
  if (layers.size() == 1) return fmt::format("{}", layers[0]);
  const int64_t step = layers[1] - layers[0];
  for (size_t i = 2; i < layers.size(); ++i) {
    if (layers[i] - layers[i - 1] != step) return fmt::format("{}", fmt::join(layers, ", "));
  }
  return fmt::format("{}-{}{}", layers.front(), layers.back(),
                     step == 1 ? "" : fmt::format(" by {}", step));
}

std::string LayerTable(const ModelSummary& summary) {
  const std::vector<Block> blocks = BlocksOf(summary);
  const auto layers = static_cast<size_t>(summary.config.num_hidden_layers);
  struct Row {
    std::string name;
    const Block* block;
    std::vector<int64_t> layers;
  };
  std::vector<Row> rows;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const Row& row) {
      return i < layers && row.block->SameKind(blocks[i]);
    });
    if (same == rows.end()) {
      rows.push_back({blocks[i].name, &blocks[i], {static_cast<int64_t>(i)}});
    } else {
      same->layers.push_back(static_cast<int64_t>(i));
      same->name = LayersText(same->layers);
    }
  }
  size_t width = 6;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  std::string text =
      fmt::format("{:<{}}  {:<26}{:<8}{:<8}{:<9}{:>8}{:>17}{:>12}\n", "layers", width, "attention",
                  "routing", "linear", "experts", "tensors", "parameters each", "bytes each");
  for (const Row& row : rows) {
    const Block& block = *row.block;
    text +=
        fmt::format("{:<{}}  {:<26}{:<8}{:<8}{:<9}{:>8}{:>17}{:>12}\n", row.name, width,
                    AttentionText(summary.config, block.ratio),
                    block.hash_routed ? "hash" : "score", block.linear_format, block.expert_format,
                    block.tensors, CountText(static_cast<double>(block.parameters)),
                    BytesText(static_cast<double>(block.bytes)));
  }
  return text;
}

std::string ShareTable(const char* title, const std::map<std::string, Share>& shares) {
  std::string text = fmt::format("{:<26}{:>9}{:>12}\n", title, "tensors", "bytes");
  for (const auto& [name, share] : shares) {
    text += fmt::format("  {:<24}{:>9}{:>12}\n", name, GroupedText(share.tensors),
                        BytesText(static_cast<double>(share.bytes)));
  }
  return text;
}

std::string CacheText(const Config& config) {
  std::string text = fmt::format(
      "cache of a sequence: {:.2f} bytes per token (entries of {} bytes, index keys of {})\n",
      CacheBytesPerToken(config), CacheEntryBytes(config), IndexKeyBytes(config));
  for (const int64_t length : kLengths) {
    const CacheBytes bytes = ModelCacheBytes(config, length, false);
    text += fmt::format("  at {:>9} tokens {:>10}: compressed {}, window {}, tails {}\n",
                        GroupedText(length), BytesText(static_cast<double>(bytes.total())),
                        BytesText(static_cast<double>(bytes.compressed)),
                        BytesText(static_cast<double>(bytes.window)),
                        BytesText(static_cast<double>(bytes.tails)));
  }
  if (config.num_nextn_predict_layers > 0) {
    const int64_t draft = ModelCacheBytes(config, kLengths[0], true).total() -
                          ModelCacheBytes(config, kLengths[0], false).total();
    text += fmt::format("  drafts add {} from {} tokens on\n",
                        BytesText(static_cast<double>(draft)), config.sliding_window);
  }
  return text;
}

std::string ArchitectureText(const Config& c) {
  std::string text = fmt::format(
      "DeepSeek V4: {} layers, {} draft block{}, width {}, vocabulary {}\n", c.num_hidden_layers,
      c.num_nextn_predict_layers, c.num_nextn_predict_layers == 1 ? "" : "s", c.hidden_size,
      GroupedText(c.vocab_size));
  text += fmt::format(
      "attention: {} heads of {} ({} rotary), query rank {}, output {} x {}, window {}\n",
      c.num_attention_heads, c.head_dim, c.qk_rope_head_dim, c.q_lora_rank, c.o_groups,
      c.o_lora_rank, c.sliding_window);
  if (c.index_topk > 0) {
    text += fmt::format("indexer: {} heads of {}, best {}\n", c.index_n_heads, c.index_head_dim,
                        c.index_topk);
  }
  text += fmt::format("experts: {} routed, {} per token, width {}, factor {}, clamp {}; 1 shared\n",
                      c.n_routed_experts, c.num_experts_per_tok, c.moe_intermediate_size,
                      c.routed_scaling_factor, c.swiglu_limit);
  text += fmt::format("hyper-connections: {} streams, {} Sinkhorn rounds\n", c.hc_mult,
                      c.hc_sinkhorn_iters);
  text += fmt::format("rotation: base {}, compressed layers {}{}\n", c.rope_theta,
                      c.compress_rope_theta,
                      c.rope_scaling ? fmt::format(" with YaRN {} from {}", c.rope_scaling->factor,
                                                   c.rope_scaling->original_max_position_embeddings)
                                     : "");
  if (c.max_position_embeddings > 0) {
    text += fmt::format("positions: {}\n", GroupedText(c.max_position_embeddings));
  }
  return text;
}

}  // namespace

ModelSummary ModelSummary::Of(const LoadedModel& model) {
  ModelSummary summary{model.config, {}, model.notes, model.checkpoint.shards().size()};
  for (const TensorSpec& spec : ListTensors(model.config)) {
    SummaryTensor tensor{spec, {}};
    std::vector<std::string> names = {spec.name};
    if (spec.role == TensorRole::kLinear || spec.role == TensorRole::kExpertLinear) {
      names.push_back(ScaleName(spec.name));
    }
    for (const std::string& name : names) {
      const StoredTensor* stored = model.checkpoint.Find(name).tensor;
      if (stored != nullptr) tensor.stored.push_back({name, stored->type, stored->shape});
    }
    summary.tensors.push_back(std::move(tensor));
  }
  return summary;
}

ModelSummary ModelSummary::Of(const Config& config) {
  ModelSummary summary{config, {}, {}, 0};
  for (const TensorSpec& spec : ListTensors(config)) {
    summary.tensors.push_back({spec, StoredTensors(config, spec)});
  }
  return summary;
}

ordered_json SummaryJson(const ModelSummary& summary) {
  const Config& config = summary.config;
  const ParameterCount parameters = CountParameters(config);
  const std::map<std::string, Share> by_type = SharesByType(summary);
  const Share total = Total(by_type);
  ordered_json object;
  object["config"] = ordered_json::parse(config.ToJson());
  object["parameters"] = {
      {"total", parameters.total}, {"active", parameters.active}, {"drafts", parameters.drafts}};
  object["files"] = summary.files;
  object["tensors"] = total.tensors;
  object["bytes"] = total.bytes;
  object["by_type"] = SharesJson(by_type);
  object["by_role"] = SharesJson(SharesByRole(summary));
  object["kv_bytes_per_token"] = CacheBytesPerToken(config);
  object["kv_entry_bytes"] = CacheEntryBytes(config);
  object["kv_index_key_bytes"] = IndexKeyBytes(config);
  for (const int64_t length : kLengths) {
    const CacheBytes bytes = ModelCacheBytes(config, length, false);
    object["kv_bytes"][std::to_string(length)] = {
        {"total", bytes.total()},
        {"compressed", bytes.compressed},
        {"window", bytes.window},
        {"tails", bytes.tails},
        {"drafts", ModelCacheBytes(config, length, true).total() - bytes.total()}};
  }
  object["layers"] = ordered_json::array();
  for (const Block& block : BlocksOf(summary)) {
    object["layers"].push_back({{"name", block.name},
                                {"ratio", block.ratio},
                                {"routing", block.hash_routed ? "hash" : "score"},
                                {"linear_format", block.linear_format},
                                {"expert_format", block.expert_format},
                                {"parameters", block.parameters},
                                {"tensors", block.tensors},
                                {"bytes", block.bytes}});
  }
  object["notes"] = summary.notes;
  object["unknown_keys"] = config.unknown_keys;
  return object;
}

std::string SummaryText(const ModelSummary& summary) {
  const Config& config = summary.config;
  const ParameterCount parameters = CountParameters(config);
  const std::map<std::string, Share> by_type = SharesByType(summary);
  const Share total = Total(by_type);
  std::string text = ArchitectureText(config);
  text += fmt::format(
      "parameters: {} in all, {} active per token{}\n",
      CountText(static_cast<double>(parameters.total)),
      CountText(static_cast<double>(parameters.active)),
      parameters.drafts > 0
          ? fmt::format("; drafts {} more", CountText(static_cast<double>(parameters.drafts)))
          : "");
  text += fmt::format(
      "weights: {} tensors, {} bytes ({}){}\n", GroupedText(total.tensors),
      GroupedText(total.bytes), BytesText(static_cast<double>(total.bytes)),
      summary.files > 0 ? fmt::format(" in {} file{}", summary.files, summary.files == 1 ? "" : "s")
                        : "");
  text += fmt::format("\n{}\n{}{}\n{}", LayerTable(summary),
                      ShareTable("by role", SharesByRole(summary)), ShareTable("by type", by_type),
                      CacheText(config));
  for (const std::string& note : summary.notes) text += fmt::format("note: {}\n", note);
  return text;
}

}  // namespace toaster
