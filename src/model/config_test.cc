#include "model/config.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/weights.h"

namespace toaster {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::filesystem::path Golden(const std::string& set) {
  return std::filesystem::path(TOASTER_SOURCE_DIR) / "tests/golden" / set /
         "checkpoint/config.json";
}

json Flash() { return json::parse(Config::Preset("v4-flash").ToJson()); }

// What Parse says to the Flash config after `change`; "" if it accepts it.
template <typename Change>
std::string MessageAfter(Change change, ErrorCode expected = ErrorCode::kCorruptFile) {
  json object = Flash();
  change(object);
  try {
    Config::Parse(object.dump(), "config.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

std::string MessageWith(const char* key, const json& value,
                        ErrorCode expected = ErrorCode::kCorruptFile) {
  return MessageAfter([&](json& object) { object[key] = value; }, expected);
}

TEST(Config, LoadsTheGoldenCheckpoints) {
  const Config g1 = Config::Load(Golden("g1_minimal"));
  EXPECT_EQ(g1.hidden_size, 128);
  EXPECT_EQ(g1.num_hidden_layers, 3);
  EXPECT_EQ(g1.num_nextn_predict_layers, 1);
  EXPECT_THAT(g1.compress_ratios, ElementsAre(0, 4, 128, 0));
  EXPECT_EQ(g1.rope_theta, 10000.0);
  EXPECT_EQ(g1.compress_rope_theta, 160000.0);
  ASSERT_TRUE(g1.rope_scaling.has_value());
  EXPECT_EQ(*g1.rope_scaling, (RopeScaling{16, 128, 32, 1}));
  EXPECT_EQ(g1.hc_eps, 1e-6);
  EXPECT_EQ(g1.bos_token_id, 0);
  EXPECT_EQ(g1.eos_token_id, 1);
  EXPECT_EQ(g1.expert_dtype, "fp4");
  EXPECT_TRUE(g1.quantised);
  EXPECT_THAT(g1.unknown_keys, IsEmpty());
  EXPECT_EQ(Config::Load(Golden("g2_all_kinds")).swiglu_limit, 1.5);
  EXPECT_EQ(Config::Load(Golden("g3_wide_two_shards")).head_dim, 192);
  EXPECT_EQ(Config::Load(Golden("g4_fp8_experts")).expert_dtype, "fp8");
}

TEST(Config, SurvivesTheWayToTextAndBack) {
  for (const char* preset : {"v4-flash", "v4-pro", "tiny"}) {
    const Config config = Config::Preset(preset);
    config.Validate(preset);
    EXPECT_EQ(Config::Parse(config.ToJson(), preset), config) << preset;
  }
  for (const char* set : {"g1_minimal", "g2_all_kinds", "g3_wide_two_shards", "g4_fp8_experts"}) {
    const Config config = Config::Load(Golden(set));
    EXPECT_EQ(Config::Parse(config.ToJson(), set), config) << set;
  }
  Config bare = Config::Preset("tiny");  // everything optional left out, no ratio of 4
  bare.num_nextn_predict_layers = 0;
  bare.compress_ratios = {0, 128, 16, 0};
  bare.index_n_heads = bare.index_head_dim = bare.index_topk = 0;
  bare.rope_scaling.reset();
  bare.quantised = false;
  bare.expert_dtype.clear();
  bare.bos_token_id = bare.eos_token_id = -1;
  bare.max_position_embeddings = 0;
  bare.hidden_size = 200;  // plain BF16 weights know no blocks
  EXPECT_EQ(Config::Parse(bare.ToJson(), "bare"), bare);
}

// The key tables of the released files: 43 and 61 layers of the kinds the architecture lists.
TEST(Config, PresetsAreTheReleasedModels) {
  const Config flash = Config::Preset("v4-flash"), pro = Config::Preset("v4-pro");
  EXPECT_EQ(flash.compress_ratios.size(), 44u);
  EXPECT_EQ(pro.compress_ratios.size(), 62u);
  const auto count = [](const Config& c, int64_t ratio) {
    return std::count(c.compress_ratios.begin(), c.compress_ratios.begin() + c.num_hidden_layers,
                      ratio);
  };
  EXPECT_EQ(count(flash, 0), 2);
  EXPECT_EQ(count(flash, 4), 21);
  EXPECT_EQ(count(flash, 128), 20);
  EXPECT_EQ(count(pro, 0), 0);
  EXPECT_EQ(count(pro, 4), 30);
  EXPECT_EQ(count(pro, 128), 31);
  EXPECT_EQ(flash.compress_ratios.back(), 0);
  EXPECT_EQ(pro.compress_ratios.back(), 0);
  try {
    Config::Preset("v5");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(), "no preset 'v5'; there are v4-flash, v4-pro and tiny");
  }
}

TEST(Config, NamesEveryMissingKey) {
  for (const char* key : {"hidden_size",
                          "vocab_size",
                          "num_hidden_layers",
                          "num_hash_layers",
                          "num_attention_heads",
                          "head_dim",
                          "qk_rope_head_dim",
                          "q_lora_rank",
                          "o_groups",
                          "o_lora_rank",
                          "sliding_window",
                          "compress_ratios",
                          "rope_theta",
                          "compress_rope_theta",
                          "moe_intermediate_size",
                          "n_routed_experts",
                          "num_experts_per_tok",
                          "routed_scaling_factor",
                          "scoring_func",
                          "swiglu_limit",
                          "hc_mult",
                          "hc_sinkhorn_iters",
                          "hc_eps",
                          "rms_norm_eps",
                          "index_n_heads",
                          "index_head_dim",
                          "index_topk"}) {
    EXPECT_EQ(MessageAfter([&](json& object) { object.erase(key); }),
              std::string("config.json: key '") + key +
                  "' is missing; take the config.json that came with the checkpoint");
    EXPECT_THAT(MessageWith(key, nullptr), HasSubstr("is missing"));
  }
}

TEST(Config, DoesWithoutOptionalKeys) {
  json object = Flash();
  for (const char* key :
       {"architectures", "model_type", "torch_dtype", "attention_bias", "hidden_act",
        "n_shared_experts", "norm_topk_prob", "num_key_value_heads", "tie_word_embeddings",
        "topk_method", "num_nextn_predict_layers", "max_position_embeddings", "bos_token_id",
        "eos_token_id", "expert_dtype", "rope_scaling", "quantization_config"}) {
    ASSERT_EQ(object.erase(key), 1u) << key;
  }
  const Config c = Config::Parse(object.dump(), "config.json");
  EXPECT_EQ(c.num_nextn_predict_layers, 0);
  EXPECT_EQ(c.compress_ratios.size(), 43u);
  EXPECT_EQ(c.bos_token_id, -1);
  EXPECT_FALSE(c.rope_scaling.has_value());
  EXPECT_FALSE(c.quantised);
}

TEST(Config, ReportsUnknownKeysAndIgnoresFurtherRatios) {
  json object = Flash();
  object["dspark_block_size"] = 5;
  object["new\nkey"] = {{"a", 1}};
  object["rope_scaling"]["mscale"] = 1.0;
  object["expert_dtype"] = "fp5";
  object["compress_ratios"].push_back(7);
  object["compress_ratios"].push_back(9);
  const Config c = Config::Parse(object.dump(), "config.json");
  EXPECT_THAT(c.unknown_keys, ElementsAre("expert_dtype = fp5", "rope_scaling.mscale",
                                          "dspark_block_size", "new\\x0akey"));
  EXPECT_EQ(c.expert_dtype, "");
  EXPECT_EQ(c.compress_ratios, Config::Preset("v4-flash").compress_ratios);
}

TEST(Config, DropsIndexerKeysWithoutAnIndexer) {
  json object = Flash();
  for (json& ratio : object["compress_ratios"]) ratio = 128;
  const Config c = Config::Parse(object.dump(), "config.json");
  EXPECT_EQ(c.index_n_heads, 0);
  EXPECT_EQ(c.index_head_dim, 0);
  EXPECT_EQ(c.index_topk, 0);
}

TEST(Config, RefusesOtherArchitecturesByName) {
  const auto refused = [](const char* key, const json& value) {
    return MessageWith(key, value, ErrorCode::kUnsupported);
  };
  EXPECT_EQ(refused("scoring_func", "sigmoid"),
            "config.json: 'scoring_func' is \"sigmoid\"; this program runs models with "
            "\"sqrtsoftplus\" only");
  EXPECT_EQ(refused("model_type", "deepseek_v41"),
            "config.json: 'model_type' is \"deepseek_v41\"; this program runs models with "
            "\"deepseek_v4\" only");
  EXPECT_THAT(refused("architectures", {"LlamaForCausalLM"}), HasSubstr("'architectures'"));
  EXPECT_THAT(refused("norm_topk_prob", false), HasSubstr("'norm_topk_prob' is false"));
  EXPECT_THAT(refused("n_shared_experts", 2), HasSubstr("'n_shared_experts' is 2"));
  EXPECT_THAT(refused("num_key_value_heads", 8), HasSubstr("'num_key_value_heads' is 8"));
  EXPECT_THAT(refused("hidden_act", "gelu"), HasSubstr("'hidden_act' is \"gelu\""));
  EXPECT_THAT(refused("attention_bias", true), HasSubstr("'attention_bias' is true"));
  EXPECT_THAT(refused("tie_word_embeddings", true), HasSubstr("'tie_word_embeddings' is true"));
  EXPECT_THAT(refused("topk_method", "greedy"), HasSubstr("'topk_method' is \"greedy\""));
  EXPECT_THAT(MessageAfter(
                  [](json& o) {
                    o["quantization_config"]["weight_block_size"] = {1, 32};
                  },
                  ErrorCode::kUnsupported),
              HasSubstr("'quantization_config.weight_block_size' is [1,32]"));
  EXPECT_THAT(
      MessageAfter([](json& o) { o["rope_scaling"]["type"] = "linear"; }, ErrorCode::kUnsupported),
      HasSubstr("'rope_scaling.type' is \"linear\""));
}

TEST(Config, RefusesValuesOfTheWrongTypeOrRange) {
  EXPECT_EQ(MessageWith("hidden_size", 4096.0),
            "config.json: 'hidden_size' is 4096.0; expected a whole number");
  EXPECT_EQ(MessageWith("hidden_size", "4096"),
            "config.json: 'hidden_size' is \"4096\"; expected a whole number");
  EXPECT_EQ(MessageWith("hidden_size", true),
            "config.json: 'hidden_size' is true; expected a whole number");
  EXPECT_EQ(MessageWith("hidden_size", -1),
            "config.json: 'hidden_size' is -1; expected 1 to 262144");
  EXPECT_EQ(MessageWith("hidden_size", 0), "config.json: 'hidden_size' is 0; expected 1 to 262144");
  EXPECT_THAT(MessageWith("vocab_size", int64_t{1} << 40), HasSubstr("expected 1 to 16777216"));
  EXPECT_THAT(MessageWith("vocab_size", ~uint64_t{0}), HasSubstr("expected a whole number"));
  EXPECT_THAT(MessageWith("num_hidden_layers", 1 << 20), HasSubstr("expected 1 to 1024"));
  EXPECT_THAT(MessageWith("num_hidden_layers", (int64_t{1} << 62) - 1), HasSubstr("1 to 1024"));
  EXPECT_THAT(MessageWith("num_nextn_predict_layers", -1), HasSubstr("expected 0 to 64"));
  EXPECT_THAT(MessageWith("num_nextn_predict_layers", int64_t{1} << 62), HasSubstr("0 to 64"));
  EXPECT_THAT(MessageWith("rms_norm_eps", 0), HasSubstr("'rms_norm_eps' is 0"));
  EXPECT_THAT(MessageWith("rope_theta", "1"), HasSubstr("expected a number"));
  EXPECT_THAT(MessageWith("rope_theta", 1), HasSubstr("'rope_theta' is 1; expected 1.001"));
  EXPECT_THAT(MessageWith("swiglu_limit", -1), HasSubstr("'swiglu_limit' is -1"));
  EXPECT_THAT(MessageWith("compress_ratios", 4), HasSubstr("expected a list"));
  EXPECT_THAT(MessageWith("eos_token_id", 129280), HasSubstr("expected -1 to 129279"));
  EXPECT_THAT(MessageWith("eos_token_id", {1, 2}), HasSubstr("'eos_token_id' is [1,2]"));
  EXPECT_THAT(MessageWith("expert_dtype", 4), HasSubstr("expected a string"));
  EXPECT_THAT(MessageWith("rope_scaling", 16),
              HasSubstr("'rope_scaling' is 16; expected an object"));
  EXPECT_THAT(MessageAfter([](json& o) { o["rope_scaling"].erase("factor"); }),
              HasSubstr("key 'rope_scaling.factor' is missing"));
  EXPECT_THAT(MessageAfter([](json& o) { o["rope_scaling"]["beta_fast"] = 0.5; }),
              HasSubstr("'rope_scaling.beta_fast' is 0.5; expected 1 to"));
  EXPECT_THAT(MessageAfter([](json& o) { o["compress_ratios"][3] = 4.5; }),
              HasSubstr("'compress_ratios' is 4.5"));
  EXPECT_THAT(MessageAfter([](json& o) { o["compress_ratios"][3] = -4; }),
              HasSubstr("'compress_ratios' is -4; expected 0 to 65536"));
}

TEST(Config, RefusesContradictions) {
  EXPECT_EQ(MessageWith("num_hash_layers", 44),
            "config.json: 'num_hash_layers' is 44, but 'num_hidden_layers' is 43; take the "
            "config.json that came with the checkpoint");
  EXPECT_THAT(MessageWith("num_hidden_layers", 44), HasSubstr("'compress_ratios' has 44 entries"));
  EXPECT_THAT(MessageWith("num_nextn_predict_layers", 2), HasSubstr("ask for 45"));
  EXPECT_THAT(MessageWith("n_routed_experts", 5), HasSubstr("'num_experts_per_tok' is 6"));
  EXPECT_THAT(MessageWith("n_routed_experts", 10000), HasSubstr("'n_routed_experts' is 10000"));
  EXPECT_THAT(MessageWith("o_groups", 7), HasSubstr("'o_groups' is 7, which does not divide"));
  EXPECT_THAT(MessageWith("qk_rope_head_dim", 63), HasSubstr("not even"));
  EXPECT_THAT(MessageWith("head_dim", 500), HasSubstr("is 436, not a positive multiple of 64"));
  EXPECT_THAT(MessageWith("head_dim", 64), HasSubstr("is 0, not a positive multiple of 64"));
  EXPECT_THAT(MessageWith("index_head_dim", 96), HasSubstr("not a power of two"));
  EXPECT_THAT(MessageWith("index_head_dim", 32), HasSubstr("less than 'qk_rope_head_dim'"));
  EXPECT_THAT(MessageWith("hidden_size", 4100), HasSubstr("'hidden_size' is 4100, not a multiple"));
  EXPECT_THAT(MessageWith("q_lora_rank", 100), HasSubstr("'q_lora_rank' is 100, not a multiple"));
  EXPECT_THAT(MessageWith("moe_intermediate_size", 64), HasSubstr("not a multiple of 128"));
  EXPECT_THAT(MessageWith("o_lora_rank", 8), HasSubstr("'o_groups' times 'o_lora_rank' is 64"));
  EXPECT_THAT(MessageWith("num_attention_heads", 4096),
              HasSubstr("'num_attention_heads' times 'head_dim' is 2097152, more than 1048576"));
}

TEST(Config, RefusesTextThatIsNoConfig) {
  const auto message = [](const std::string& text) {
    try {
      Config::Parse(text, "config.json");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(""), "config.json: not valid JSON at byte 1 of 0");
  EXPECT_EQ(message("[]"), "config.json: not a JSON object; it should be a model's config.json");
  EXPECT_EQ(message("{}"),
            "config.json: key 'scoring_func' is missing; take the config.json that came with the "
            "checkpoint");
  EXPECT_THAT(message("{\"hidden_size\": 1, \"hidden_size\": 2}"), HasSubstr("stands twice"));
  EXPECT_THAT(message(std::string(1 << 21, ' ')), HasSubstr("too long for a config.json"));
  std::string text = Config::Preset("tiny").ToJson();
  for (size_t cut = 0; cut < text.size() - 2; ++cut) {
    EXPECT_THAT(message(text.substr(0, cut)), HasSubstr("not valid JSON")) << cut;
  }
}

TEST(Config, NamesAFileThatIsNotThere) {
  try {
    Config::Load("/nonexistent/config.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("/nonexistent/config.json"));
  }
}

// No name twice, and every kind of block is in the tiny preset.
TEST(Config, ListsEveryTensorOnce) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : ListTensors(Config::Preset("tiny"))) names.push_back(spec.name);
  std::vector<std::string> unique = names;
  std::sort(unique.begin(), unique.end());
  EXPECT_EQ(std::unique(unique.begin(), unique.end()), unique.end());
  EXPECT_THAT(names, testing::IsSupersetOf(
                         {"embed.weight", "layers.0.ffn.gate.tid2eid", "layers.1.ffn.gate.bias",
                          "layers.1.attn.indexer.compressor.ape", "layers.2.attn.compressor.ape",
                          "layers.3.ffn.experts.3.w2.weight", "mtp.0.e_proj.weight",
                          "mtp.0.hc_head_scale"}));
}

}  // namespace
}  // namespace toaster
