#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/printable.h"
#include "model/config_fields.h"

namespace toaster {
namespace {

using nlohmann::json;

constexpr size_t kLongestFile = 1 << 20;
constexpr int64_t kMostDrafts = 64;
constexpr int64_t kLargestRatio = 1 << 16;

// A value as the file spells it, cut to what fits into a message.
std::string Shown(const json& value) {
  return Printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

// Reads the keys of one JSON object and remembers which it was asked for. `path` names the object
// in messages: "" for the file's own, "rope_scaling." for a nested one.
class KeyReader {
 public:
  KeyReader(const json& object, const std::string& origin, const std::string& path)
      : object_(object), origin_(origin), path_(path) {
    if (!object.is_object()) {
      throw Error(
          ErrorCode::kCorruptFile,
          path.empty()
              ? fmt::format("{}: not a JSON object; it should be a model's config.json", origin)
              : fmt::format("{}: '{}' is {}; expected an object", origin,
                            path.substr(0, path.size() - 1), Shown(object)));
    }
  }

  /// The value of an optional key; null counts as absent.
  const json* Find(const std::string& key) {
    asked_.insert(key);
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  const json& Require(const std::string& key) {
    const json* value = Find(key);
    if (value == nullptr) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("{}: key '{}{}' is missing; take the config.json that came with the "
                              "checkpoint",
                              origin_, path_, key));
    }
    return *value;
  }

  int64_t Integer(const std::string& key, const json& value) const {
    constexpr uint64_t kLargest = uint64_t{1} << 62;
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<uint64_t>() > kLargest)) {
      throw WrongType(key, value, "a whole number");
    }
    return value.get<int64_t>();
  }

  double Real(const std::string& key, const json& value) const {
    if (!value.is_number()) throw WrongType(key, value, "a number");
    return value.get<double>();
  }

  template <typename Number>
  void Read(const std::string& key, const json& value, Number& field) const {
    if constexpr (std::is_same_v<Number, double>) {
      field = Real(key, value);
    } else {
      field = Integer(key, value);
    }
  }

  template <typename Number>
  void ReadIfPresent(const std::string& key, Number& field) {
    if (const json* value = Find(key)) Read(key, *value, field);
  }

  /// Refuses any other value than `wanted`, the only one this program computes.
  void Only(const std::string& key, const json& wanted) {
    const json* value = Find(key);
    if (value == nullptr || *value == wanted) return;
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: '{}{}' is {}; this program runs models with {} only", origin_,
                            path_, key, Shown(*value), wanted.dump()));
  }

  Error WrongType(const std::string& key, const json& value, std::string_view expected) const {
    return Error(ErrorCode::kCorruptFile, fmt::format("{}: '{}{}' is {}; expected {}", origin_,
                                                      path_, key, Shown(value), expected));
  }

  /// Keys that are known but change nothing here.
  void Ignore(std::initializer_list<const char*> keys) { asked_.insert(keys.begin(), keys.end()); }

  void ReportUnknown(std::vector<std::string>& unknown) const {
    for (const auto& [key, value] : object_.items()) {
      if (!asked_.contains(key)) unknown.push_back(Printable(path_ + key));
    }
  }

 private:
  const json& object_;
  const std::string& origin_;
  const std::string path_;
  std::set<std::string> asked_;
};

void CheckArchitecture(KeyReader& keys) {
  keys.Only("model_type", "deepseek_v4");
  keys.Only("architectures", json::array({"DeepseekV4ForCausalLM"}));
  keys.Require("scoring_func");
  keys.Only("scoring_func", "sqrtsoftplus");
  keys.Only("topk_method", "noaux_tc");
  keys.Only("norm_topk_prob", true);
  keys.Only("n_shared_experts", 1);
  keys.Only("num_key_value_heads", 1);
  keys.Only("hidden_act", "silu");
  keys.Only("attention_bias", false);
  keys.Only("tie_word_embeddings", false);
  keys.Ignore({"attention_dropout", "initializer_range", "torch_dtype", "dtype",
               "transformers_version", "use_cache"});
}

RopeScaling ParseRopeScaling(KeyReader keys, std::vector<std::string>& unknown) {
  RopeScaling scaling;
  keys.Only("type", "yarn");
  keys.Only("rope_type", "yarn");  // the newer spelling
  keys.Read("factor", keys.Require("factor"), scaling.factor);
  keys.Read("original_max_position_embeddings", keys.Require("original_max_position_embeddings"),
            scaling.original_max_position_embeddings);
  keys.ReadIfPresent("beta_fast", scaling.beta_fast);
  keys.ReadIfPresent("beta_slow", scaling.beta_slow);
  keys.ReportUnknown(unknown);
  return scaling;
}

// What would change the arithmetic is refused; which tensors are quantised, and how, the tensors
// tell.
void CheckQuantisation(KeyReader keys, std::vector<std::string>& unknown) {
  keys.Only("quant_method", "fp8");
  keys.Only("fmt", "e4m3");
  keys.Only("activation_scheme", "dynamic");
  keys.Only("scale_fmt", "ue8m0");
  keys.Only("weight_block_size", json::array({128, 128}));
  keys.ReportUnknown(unknown);
}

std::vector<int64_t> ParseRatios(KeyReader& keys, int64_t blocks, const std::string& origin) {
  const json& list = keys.Require("compress_ratios");
  if (!list.is_array()) throw keys.WrongType("compress_ratios", list, "a list of whole numbers");
  if (static_cast<int64_t>(list.size()) < blocks) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: 'compress_ratios' has {} entries; num_hidden_layers and "
                            "num_nextn_predict_layers ask for {}",
                            origin, list.size(), blocks));
  }
  std::vector<int64_t> ratios;
  for (const json& entry : list) ratios.push_back(keys.Integer("compress_ratios", entry));
  ratios.resize(static_cast<size_t>(blocks));  // further entries belong to other kinds of drafts
  return ratios;
}

bool HasIndexer(const Config& c) {
  return std::find(c.compress_ratios.begin(), c.compress_ratios.end(), 4) !=
         c.compress_ratios.end();
}

[[noreturn]] void Contradiction(const std::string& origin, const std::string& what) {
  throw Error(
      ErrorCode::kCorruptFile,
      fmt::format("{}: {}; take the config.json that came with the checkpoint", origin, what));
}

template <typename Number>
void CheckRange(const std::string& origin, const std::string& key, Number value, Number smallest,
                Number largest) {
  if (value >= smallest && value <= largest) return;  // false for NaN
  throw Error(ErrorCode::kCorruptFile, fmt::format("{}: '{}' is {}; expected {} to {}", origin, key,
                                                   value, smallest, largest));
}

void CheckProduct(const std::string& origin, const char* key_a, int64_t a, const char* key_b,
                  int64_t b) {
  constexpr int64_t kWidest = 1 << 20;
  if (a * b <= kWidest) return;
  Contradiction(origin,
                fmt::format("'{}' times '{}' is {}, more than {}", key_a, key_b, a * b, kWidest));
}

void CheckCounts(const Config& c, const std::string& origin) {
  CheckRange(origin, "num_nextn_predict_layers", c.num_nextn_predict_layers, int64_t{0},
             kMostDrafts);
  // An expert takes memory for its description before any file was looked at.
  constexpr int64_t kMostExperts = 1 << 18;
  if (c.total_blocks() * c.n_routed_experts > kMostExperts) {
    Contradiction(origin, fmt::format("'n_routed_experts' is {} in {} layers, more than {} in all",
                                      c.n_routed_experts, c.total_blocks(), kMostExperts));
  }
  if (c.num_hash_layers > c.num_hidden_layers) {
    Contradiction(origin, fmt::format("'num_hash_layers' is {}, but 'num_hidden_layers' is {}",
                                      c.num_hash_layers, c.num_hidden_layers));
  }
  if (c.num_experts_per_tok > c.n_routed_experts) {
    Contradiction(origin, fmt::format("'num_experts_per_tok' is {}, but 'n_routed_experts' is {}",
                                      c.num_experts_per_tok, c.n_routed_experts));
  }
  if (static_cast<int64_t>(c.compress_ratios.size()) != c.total_blocks()) {
    Contradiction(origin, fmt::format("'compress_ratios' has {} entries for {} blocks",
                                      c.compress_ratios.size(), c.total_blocks()));
  }
  for (const int64_t ratio : c.compress_ratios) {
    CheckRange(origin, "compress_ratios", ratio, int64_t{0}, kLargestRatio);
  }
}

void CheckHeads(const Config& c, const std::string& origin) {
  if (c.qk_rope_head_dim % 2 != 0) {
    Contradiction(origin, fmt::format("'qk_rope_head_dim' is {}, not even", c.qk_rope_head_dim));
  }
  const int64_t unrotated = c.head_dim - c.qk_rope_head_dim;
  if (unrotated <= 0 || unrotated % 64 != 0) {
    Contradiction(origin, fmt::format("'head_dim' minus 'qk_rope_head_dim' is {}, not a positive "
                                      "multiple of 64",
                                      unrotated));
  }
  CheckProduct(origin, "num_attention_heads", c.num_attention_heads, "head_dim", c.head_dim);
  CheckProduct(origin, "o_groups", c.o_groups, "o_lora_rank", c.o_lora_rank);
  if (c.num_attention_heads % c.o_groups != 0) {
    Contradiction(origin, fmt::format("'o_groups' is {}, which does not divide "
                                      "'num_attention_heads', {}",
                                      c.o_groups, c.num_attention_heads));
  }
  if (!HasIndexer(c)) return;
  internal::VisitIndexNumbers(c, [&](const char* key, auto value, auto smallest, auto largest) {
    CheckRange(origin, key, value, smallest, largest);
  });
  CheckProduct(origin, "index_n_heads", c.index_n_heads, "index_head_dim", c.index_head_dim);
  if (!std::has_single_bit(static_cast<uint64_t>(c.index_head_dim))) {
    Contradiction(origin,
                  fmt::format("'index_head_dim' is {}, not a power of two", c.index_head_dim));
  }
  if (c.index_head_dim < c.qk_rope_head_dim) {
    Contradiction(origin, fmt::format("'index_head_dim' is {}, less than 'qk_rope_head_dim', {}",
                                      c.index_head_dim, c.qk_rope_head_dim));
  }
}

// Inputs of FP8 and FP4 layers are rounded in blocks of 128.
void CheckWidths(const Config& c, const std::string& origin) {
  const auto check = [&](const char* what, int64_t width) {
    if (width % 128 == 0) return;
    Contradiction(origin, fmt::format("{} is {}, not a multiple of 128 as quantised weights need",
                                      what, width));
  };
  check("'hidden_size'", c.hidden_size);
  check("'q_lora_rank'", c.q_lora_rank);
  check("'moe_intermediate_size'", c.moe_intermediate_size);
  check("'o_groups' times 'o_lora_rank'", c.o_groups * c.o_lora_rank);
}

void CheckRotation(const Config& c, const std::string& origin) {
  if (!c.rope_scaling) return;
  const RopeScaling& scaling = *c.rope_scaling;
  CheckRange(origin, "rope_scaling.factor", scaling.factor, 1.0, 1e6);
  CheckRange(origin, "rope_scaling.original_max_position_embeddings",
             scaling.original_max_position_embeddings, int64_t{0}, int64_t{1} << 30);
  CheckRange(origin, "rope_scaling.beta_slow", scaling.beta_slow, 1e-6, 1e6);
  CheckRange(origin, "rope_scaling.beta_fast", scaling.beta_fast, scaling.beta_slow, 1e6);
}

}  // namespace

Config Config::Parse(std::string_view text, const std::string& origin) {
  if (text.size() > kLongestFile) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: {} bytes, too long for a config.json", origin, text.size()));
  }
  const json object = ParseJson(text, origin);
  KeyReader keys(object, origin, "");
  CheckArchitecture(keys);
  Config c;
  const auto read = [&](const char* key, auto& field, auto, auto) {
    keys.Read(key, keys.Require(key), field);
  };
  internal::VisitRequiredNumbers(c, read);
  keys.ReadIfPresent("num_nextn_predict_layers", c.num_nextn_predict_layers);
  keys.ReadIfPresent("max_position_embeddings", c.max_position_embeddings);
  keys.ReadIfPresent("bos_token_id", c.bos_token_id);
  keys.ReadIfPresent("eos_token_id", c.eos_token_id);
  CheckRange(origin, "num_hidden_layers", c.num_hidden_layers, int64_t{1}, int64_t{1024});
  CheckRange(origin, "num_nextn_predict_layers", c.num_nextn_predict_layers, int64_t{0},
             kMostDrafts);
  c.compress_ratios = ParseRatios(keys, c.total_blocks(), origin);
  if (HasIndexer(c)) {
    internal::VisitIndexNumbers(c, read);
  } else {
    keys.Ignore({"index_n_heads", "index_head_dim", "index_topk"});
  }
  if (const json* value = keys.Find("expert_dtype")) {
    if (!value->is_string()) throw keys.WrongType("expert_dtype", *value, "a string");
    const auto name = value->get<std::string>();
    if (name == "fp4" || name == "fp8") {
      c.expert_dtype = name;
    } else {
      c.unknown_keys.push_back(Printable("expert_dtype = " + name));
    }
  }
  if (const json* value = keys.Find("rope_scaling")) {
    c.rope_scaling = ParseRopeScaling(KeyReader(*value, origin, "rope_scaling."), c.unknown_keys);
  }
  if (const json* value = keys.Find("quantization_config")) {
    CheckQuantisation(KeyReader(*value, origin, "quantization_config."), c.unknown_keys);
    c.quantised = true;
  }
  keys.ReportUnknown(c.unknown_keys);
  c.Validate(origin);
  return c;
}

Config Config::Load(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  return Parse({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()},
               file.string());
}

std::string Config::ToJson() const {
  nlohmann::ordered_json object = {{"architectures", {"DeepseekV4ForCausalLM"}},
                                   {"model_type", "deepseek_v4"},
                                   {"torch_dtype", "bfloat16"},
                                   {"attention_bias", false},
                                   {"hidden_act", "silu"},
                                   {"n_shared_experts", 1},
                                   {"norm_topk_prob", true},
                                   {"num_key_value_heads", 1},
                                   {"scoring_func", "sqrtsoftplus"},
                                   {"tie_word_embeddings", false},
                                   {"topk_method", "noaux_tc"}};
  const auto write = [&](const char* key, auto value, auto, auto) { object[key] = value; };
  internal::VisitRequiredNumbers(*this, write);
  if (HasIndexer(*this)) internal::VisitIndexNumbers(*this, write);
  object["compress_ratios"] = compress_ratios;
  object["num_nextn_predict_layers"] = num_nextn_predict_layers;
  if (max_position_embeddings > 0) object["max_position_embeddings"] = max_position_embeddings;
  if (bos_token_id >= 0) object["bos_token_id"] = bos_token_id;
  if (eos_token_id >= 0) object["eos_token_id"] = eos_token_id;
  if (!expert_dtype.empty()) object["expert_dtype"] = expert_dtype;
  if (rope_scaling) {
    object["rope_scaling"] = {
        {"type", "yarn"},
        {"factor", rope_scaling->factor},
        {"original_max_position_embeddings", rope_scaling->original_max_position_embeddings},
        {"beta_fast", rope_scaling->beta_fast},
        {"beta_slow", rope_scaling->beta_slow}};
  }
  if (quantised) {
    object["quantization_config"] = {{"quant_method", "fp8"},
                                     {"fmt", "e4m3"},
                                     {"activation_scheme", "dynamic"},
                                     {"scale_fmt", "ue8m0"},
                                     {"weight_block_size", {128, 128}}};
  }
  return object.dump(2) + "\n";
}

void Config::Validate(const std::string& origin) const {
  internal::VisitRequiredNumbers(*this,
                                 [&](const char* key, auto value, auto smallest, auto largest) {
                                   CheckRange(origin, key, value, smallest, largest);
                                 });
  CheckRange(origin, "max_position_embeddings", max_position_embeddings, int64_t{0},
             int64_t{1} << 30);
  CheckRange(origin, "bos_token_id", bos_token_id, int64_t{-1}, vocab_size - 1);
  CheckRange(origin, "eos_token_id", eos_token_id, int64_t{-1}, vocab_size - 1);
  CheckCounts(*this, origin);
  CheckHeads(*this, origin);
  if (quantised) CheckWidths(*this, origin);
  CheckRotation(*this, origin);
}

}  // namespace toaster
