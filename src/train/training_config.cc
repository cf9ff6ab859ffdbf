#include "train/training_config.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/json.h"

namespace toaster {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kMost = int64_t{1} << 40;

std::string ReadFile(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream || !text) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: cannot be read", file.string()));
  }
  return text.str();
}

// One object of the file: every key is asked for once, what is left over is unknown.
class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) Fail("", "has to be an object");
  }

  bool Has(const char* key) {
    known_.insert(key);
    return object_.contains(key);
  }
  const Json& At(const char* key) {
    if (!Has(key)) Fail(key, "is missing");
    return object_[key];
  }
  std::string Where(const char* key) const { return fmt::format("{} \"{}\"", where_, key); }

  void Integer(const char* key, int64_t least, int64_t& value) {
    if (!Has(key)) return;
    const Json& json = object_[key];
    // An unsigned number beyond int64_t would wrap.
    const bool fits =
        json.is_number_integer() &&
        (!json.is_number_unsigned() || json.get<uint64_t>() <= static_cast<uint64_t>(kMost));
    if (!fits || json.get<int64_t>() < least || json.get<int64_t>() > kMost)
      Fail(key, fmt::format("has to be a whole number of at least {}", least));
    value = json.get<int64_t>();
  }
  template <typename Float>
  void Number(const char* key, double least, double most, Float& value) {
    if (!Has(key)) return;
    const Json& json = object_[key];
    if (!json.is_number() || !(json.get<double>() >= least && json.get<double>() <= most))
      Fail(key, fmt::format("has to be a number from {} to {}", least, most));
    value = static_cast<Float>(json.get<double>());
  }
  void Boolean(const char* key, bool& value) {
    if (!Has(key)) return;
    if (!object_[key].is_boolean()) Fail(key, "has to be true or false");
    value = object_[key].get<bool>();
  }
  std::string Text(const char* key) {
    if (!Has(key)) return "";
    if (!object_[key].is_string() || object_[key].get<std::string>().empty())
      Fail(key, "has to be a text");
    return object_[key].get<std::string>();
  }
  /// One of two words; the second one is true.
  void Choice(const char* key, const char* first, const char* second, bool& value) {
    const std::string word = Text(key);
    if (word.empty()) return;
    if (word != first && word != second)
      Fail(key, fmt::format("has to be \"{}\" or \"{}\"", first, second));
    value = word == second;
  }
  std::vector<fs::path> Paths(const char* key, const fs::path& folder) {
    std::vector<fs::path> paths;
    if (!Has(key)) return paths;
    const Json& json = object_[key];
    const Json list = json.is_array() ? json : Json::array({json});
    for (const Json& item : list) {
      if (!item.is_string() || item.get<std::string>().empty())
        Fail(key, "has to be a path or a list of paths");
      paths.push_back(folder / item.get<std::string>());
    }
    return paths;
  }
  void Finish() const {
    for (const auto& [key, value] : object_.items()) {
      if (!known_.contains(key)) Fail(key.c_str(), "is no key of a training configuration");
    }
  }
  [[noreturn]] void Fail(const char* key, const std::string& what) const {
    throw Error(ErrorCode::kInvalidArgument,
                *key == 0 ? fmt::format("{} {}", where_, what)
                          : fmt::format("{} {}; see docs/formats/training.md", Where(key), what));
  }

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> known_;
};

TrainingStage ReadStage(const Json& json, const std::string& where) {
  Reader reader(json, where);
  TrainingStage stage;
  reader.At("steps");
  reader.Integer("steps", 1, stage.steps);
  reader.Choice("attention", "sparse", "dense", stage.dense);
  reader.Choice("trains", "all", "indexer", stage.indexer_only);
  reader.Boolean("quantised", stage.quantised);
  reader.Finish();
  return stage;
}

void ReadOptimizer(const Json& json, const std::string& where, OptimizerSettings& settings) {
  Reader reader(json, where);
  bool adamw = false;
  reader.Choice("matrices", "muon", "adamw", adamw);
  settings.muon = !adamw;
  reader.Number("momentum", 0, 1, settings.momentum);
  reader.Number("update_scale", 0, 1e3, settings.update_scale);
  reader.Number("beta1", 0, 1, settings.beta1);
  reader.Number("beta2", 0, 1, settings.beta2);
  reader.Number("epsilon", 0, 1, settings.epsilon);
  reader.Number("weight_decay", 0, 1e3, settings.decay);
  reader.Number("bias_speed", 0, 1, settings.bias_speed);
  reader.Finish();
}

void ReadLearningRate(const Json& json, const std::string& where, Schedule& schedule) {
  Reader reader(json, where);
  reader.At("peak");
  reader.Number("peak", 0, 1e3, schedule.peak);
  schedule.final = schedule.peak / 10;
  reader.Number("final", 0, 1e3, schedule.final);
  reader.Integer("warmup_steps", 0, schedule.warmup_steps);
  reader.Integer("decay_steps", 0, schedule.decay_steps);
  reader.Finish();
}

void ReadLosses(const Json& json, const std::string& where, TrainingConfig& config) {
  Reader reader(json, where);
  reader.Number("mtp", 0, 1e3, config.losses.mtp);
  reader.Number("mtp_final", 0, 1e3, config.mtp_final);
  reader.Number("balance", 0, 1e3, config.losses.balance);
  reader.Number("index", 0, 1e3, config.losses.index);
  reader.Finish();
}

}  // namespace

TrainingConfig TrainingConfig::Parse(std::string_view json, const fs::path& folder,
                                     const std::string& origin) {
  Json parsed;
  try {
    parsed = ParseJson(json, origin);
  } catch (const Error& error) {  // the user's input, not a file somebody else made
    throw Error(ErrorCode::kInvalidArgument, error.what());
  }
  Reader reader(parsed, origin + ":");
  TrainingConfig config;
  const auto path = [&](const char* key) {
    const std::string text = reader.Text(key);
    return text.empty() ? fs::path() : folder / text;
  };
  // One name for one checkpoint: it is part of the run's identity.
  config.init = path("init");
  if (!config.init.empty()) config.init = fs::weakly_canonical(config.init);
  config.tokenizer = path("tokenizer");
  config.output = path("output");
  if (config.output.empty()) reader.Fail("output", "is missing: the folder for the run");
  if (reader.Has("model") != config.init.empty())
    reader.Fail("model", "or \"init\", one of the two, says what is trained");
  if (!config.init.empty()) {
    config.model = Config::Load(config.init / "config.json");
  } else if (reader.At("model").is_string()) {
    config.model = Config::Load(folder / reader.At("model").get<std::string>());
  } else {
    config.model = Config::Parse(reader.At("model").dump(), reader.Where("model"));
  }
  config.data = reader.Paths("data", folder);
  if (config.data.empty()) reader.Fail("data", "is missing: text or JSONL files, or folders");
  config.validation = reader.Paths("validation", folder);
  reader.Number("validation_share", 0, 0.5, config.validation_share);
  if (!config.validation.empty() && config.validation_share > 0)
    reader.Fail("validation_share", "and \"validation\" cannot both be given");

  reader.Integer("sequence_tokens", 2, config.sequence_tokens);
  reader.Integer("batch_tokens", 2, config.batch_tokens);
  config.pass_tokens = config.batch_tokens;
  reader.Integer("pass_tokens", 2, config.pass_tokens);
  const int64_t longest = config.model.max_position_embeddings;
  if (longest > 0 && config.sequence_tokens > longest)
    reader.Fail("sequence_tokens", fmt::format("is more than the model's {} positions", longest));
  if (config.sequence_tokens > config.pass_tokens || config.pass_tokens > config.batch_tokens) {
    reader.Fail("pass_tokens",
                "lies between \"sequence_tokens\" and \"batch_tokens\": a pass holds whole "
                "documents");
  }
  if (reader.At("stages").empty() || !reader.At("stages").is_array())
    reader.Fail("stages", "has to be a list of at least one stage");
  for (const Json& stage : reader.At("stages")) {
    config.stages.push_back(ReadStage(
        stage, fmt::format("{} stage {}", reader.Where("stages"), config.stages.size() + 1)));
    config.learning_rate.steps += config.stages.back().steps;
  }
  ReadLearningRate(reader.At("learning_rate"), reader.Where("learning_rate"), config.learning_rate);
  const Schedule& rate = config.learning_rate;
  if (rate.warmup_steps + rate.decay_steps > rate.steps) {
    reader.Fail("learning_rate", fmt::format("warms up and decays for {} steps, the stages have {}",
                                             rate.warmup_steps + rate.decay_steps, rate.steps));
  }
  if (reader.Has("optimizer"))
    ReadOptimizer(reader.At("optimizer"), reader.Where("optimizer"), config.optimizer);
  if (reader.Has("losses")) ReadLosses(reader.At("losses"), reader.Where("losses"), config);
  reader.Number("gradient_clip", 0, 1e30, config.gradient_clip);
  reader.Number("spike_ratio", 0, 1e30, config.spike_ratio);
  if (config.spike_ratio > 0 && config.spike_ratio <= 1)
    reader.Fail("spike_ratio", "has to be more than 1, or 0 to take every loss");
  reader.Number("init_deviation", 0, 1e3, config.init_deviation);
  if (config.init_deviation > 0 && !config.init.empty())
    reader.Fail("init_deviation", "is of random weights, and \"init\" gives others");
  int64_t seed = 0;
  reader.Integer("seed", 0, seed);
  config.seed = static_cast<uint64_t>(seed);
  reader.Integer("checkpoint_steps", 1, config.checkpoint_steps);
  reader.Integer("kept_checkpoints", 1, config.kept_checkpoints);
  reader.Integer("validation_steps", 1, config.validation_steps);
  reader.Integer("validation_tokens", 2, config.validation_tokens);
  reader.Finish();
  return config;
}

TrainingConfig TrainingConfig::Load(const fs::path& file) {
  return Parse(ReadFile(file), file.parent_path(), file.string());
}

size_t TrainingConfig::StageOf(int64_t step) const {
  size_t stage = 0;
  for (int64_t end = stages[0].steps; step >= end && stage + 1 < stages.size();
       end += stages[stage].steps) {
    ++stage;
  }
  return stage;
}

LossWeights TrainingConfig::LossesAt(int64_t step) const {
  LossWeights weights = losses;
  if (learning_rate.steps - step <= learning_rate.decay_steps) weights.mtp = mtp_final;
  return weights;
}

std::string TrainingConfig::Identity() const {
  Json list = Json::array();
  for (const TrainingStage& s : stages)
    list.push_back({s.steps, s.dense, s.indexer_only, s.quantised});
  const OptimizerSettings& o = optimizer;
  return Json{
      {"model", model.ToJson()},
      {"init", init.string()},
      {"tokens", {sequence_tokens, batch_tokens, pass_tokens}},
      {"stages", list},
      {"rate",
       {learning_rate.peak, learning_rate.final, learning_rate.warmup_steps,
        learning_rate.decay_steps}},
      {"optimizer",
       {o.muon, o.momentum, o.update_scale, o.beta1, o.beta2, o.epsilon, o.decay, o.bias_speed}},
      {"losses", {losses.ce, losses.mtp, mtp_final, losses.balance, losses.index}},
      {"limits", {gradient_clip, spike_ratio}},
      {"checkpoint_steps", checkpoint_steps},
      {"init_deviation", init_deviation},
      {"seed", seed}}
      .dump();
}

}  // namespace toaster
