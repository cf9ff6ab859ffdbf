#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/check.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/flush_denormals.h"
#include "base/memory_use.h"
#include "checkpoint/load_weights.h"
#include "train/export_model.h"
#include "train/initialise_weights.h"

namespace toaster {

namespace {

constexpr double kInitDeviation = 0.02;
// The share of a new loss in the running average, and how many times a run may go back before a
// checkpoint is reached.
constexpr double kAverageShare = 0.05;
constexpr int64_t kMostRollbacks = 3;

bool IsIndexer(const TensorSpec& spec) { return spec.name.find(".indexer.") != std::string::npos; }

Config StageConfig(const Config& model, const TrainingStage& stage) {
  Config config = model;
  config.quantised = stage.quantised;
  return config;
}

// What the forward pass of a stage goes by: dense layers select every entry.
Config ForwardConfig(Config config, const TrainingStage& stage) {
  if (stage.dense) config.index_topk = int64_t{1} << 20;
  return config;
}

// Targets of the main head and of the draft block.
struct Targets {
  int64_t next = 0, draft = 0, rows = 0;
};

Targets TargetsOf(std::span<const Document> documents) {
  Targets targets;
  for (const Document& document : documents) {
    const size_t size = document.tokens.size();
    targets.rows += static_cast<int64_t>(size);
    for (size_t i = 1; i < size; ++i) {
      if (!document.wanted.empty() && !document.wanted[i]) continue;
      ++targets.next;
      if (i >= 2) ++targets.draft;
    }
  }
  return targets;
}

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

double BusiestExpert(const std::vector<std::vector<int64_t>>& loads) {
  double worst = 0;
  for (const std::vector<int64_t>& block : loads) {
    int64_t sum = 0, most = 0;
    for (const int64_t load : block) sum += load, most = std::max(most, load);
    if (sum > 0) worst = std::max(worst, Share(most * static_cast<int64_t>(block.size()), sum));
  }
  return worst;
}

}  // namespace

double TrainingFlopsPerToken(const Config& config) {
  double weights = 0;
  for (const TensorSpec& spec : ListTensors(config)) {
    if (spec.columns == 0 || spec.name == "embed.weight" || spec.role == TensorRole::kIndexTable)
      continue;
    const double share =
        spec.routed_expert ? Share(config.num_experts_per_tok, config.n_routed_experts) : 1.0;
    // The draft block uses the head once more.
    const double uses = spec.name == "head.weight" && config.num_nextn_predict_layers > 0 ? 2 : 1;
    weights += share * uses * static_cast<double>(spec.rows * spec.columns);
  }
  return 6 * weights;
}

/// What is bound to the weights of a stage.
struct Trainer::Computation {
  Computation(const TrainedWeights& weights, const TrainingStage& stage, Backend& backend,
              BackwardBackend& backward)
      : config(ForwardConfig(weights.config(), stage)),
        model(config, weights.weights(), backend),
        pass(model, weights.weights(), backward),
        gradients(weights.config(), weights.weights()) {}

  const Config config;
  Model model;
  TrainingPass pass;
  ParameterArrays gradients;
};

Trainer::Trainer(const TrainingConfig& config, TrainingData& data, const TrainingData& validation,
                 const BackendOptions& options, TrainingEvents events)
    : config_(config),
      data_(data),
      validation_(validation),
      options_(options),
      events_(std::move(events)),
      pool_(options.threads > 0 ? options.threads : UsableProcessors()),
      backend_(CreateBackend(options)),
      backward_(CreateBackward(options)) {
  const ScopedFlushDenormals flush;
  KeepFreedMemory();
  if (data_.documents() == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "the data hold no document of two tokens or more; give other files");
  }
  Digest digest;
  const std::string text = config_.Identity() + data_.DigestHex();
  digest.AddValues(std::span<const char>(text));
  identity_ = digest.Hex();
  const TrainingStage& first = config_.stages[0];
  weights_ =
      std::make_unique<TrainedWeights>(StageConfig(config_.model, first), WeightStorage::kReleased);
  optimizer_ = std::make_unique<Optimizer>(*weights_, *backward_, config_.optimizer);
  Restore();
  if (state_.step == 0) {
    if (!config_.init.empty()) {
      const LoadedModel loaded = LoadModel(config_.init);
      if (loaded.config.total_blocks() != config_.model.total_blocks()) {
        throw Error(ErrorCode::kUnsupported,
                    fmt::format("{}: has draft blocks of a kind that cannot be trained",
                                config_.init.string()));
      }
      weights_->CopyFrom(loaded.weights);
    } else {
      const double deviation = config_.init_deviation > 0 ? config_.init_deviation : kInitDeviation;
      InitialiseWeights(*weights_, config_.seed, deviation);
    }
  }
  EnterStage(config_.StageOf(state_.step));
}

Trainer::~Trainer() = default;

void Trainer::Restore() {
  const std::optional<TrainingState> state = LoadLatest(TrainingCheckpoints(Folder()));
  if (!state) return;
  state_ = *state;
  CHECK(state_.position.next <= data_.documents(), "{}", state_.position.next);
  events_.note(fmt::format("goes on after step {}", state_.step));
}

std::optional<TrainingState> Trainer::LoadLatest(const std::vector<int64_t>& steps) {
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      return LoadTrainingCheckpoint(Folder(), *step, identity_, *weights_, *optimizer_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCorruptFile) throw;
      events_.note(error.what());
    }
  }
  return std::nullopt;
}

void Trainer::EnterStage(size_t stage) {
  const TrainingStage& entered = config_.stages[stage];
  if (weights_->config().quantised != entered.quantised) {
    // Masters, biases and tables move to weights of the other storage.
    auto moved = std::make_unique<TrainedWeights>(StageConfig(config_.model, entered),
                                                  WeightStorage::kReleased);
    std::ranges::copy(weights_->masters().values(), moved->masters().values().begin());
    for (int64_t block = 0; block < config_.model.total_blocks(); ++block) {
      std::ranges::copy(weights_->RouterBias(block), moved->RouterBias(block).begin());
      std::ranges::copy(weights_->HashTable(block), moved->HashTable(block).begin());
    }
    computation_.reset();
    weights_ = std::move(moved);
  }
  weights_->Store();
  computation_ = std::make_unique<Computation>(*weights_, entered, *backend_, *backward_);
  stage_ = stage;
}

StepReport Trainer::Step() {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Document> batch =
      data_.NextBatch(state_.position, config_.batch_tokens, config_.seed);
  const LossWeights wanted = config_.LossesAt(state_.step);
  const Targets all = TargetsOf(batch);
  Computation& c = *computation_;
  c.gradients.Clear();
  StepReport report;
  report.losses.loads.resize(static_cast<size_t>(config_.model.total_blocks()));
  // A pass takes as many documents as it may hold; its losses are means over its own targets, so
  // they count by their share.
  for (size_t begin = 0; begin < batch.size();) {
    size_t end = begin;
    int64_t rows = 0;
    while (end < batch.size()) {
      rows += static_cast<int64_t>(batch[end].tokens.size());
      if (end > begin && rows > config_.pass_tokens) break;
      ++end;
    }
    const std::span documents = std::span(batch).subspan(begin, end - begin);
    const Targets some = TargetsOf(documents);
    const double next = Share(some.next, all.next), draft = Share(some.draft, all.draft);
    const double part = Share(some.rows, all.rows);
    LossWeights weights;
    weights.ce = static_cast<float>(wanted.ce * next);
    weights.mtp = static_cast<float>(wanted.mtp * draft);
    weights.balance = static_cast<float>(wanted.balance * part);
    weights.index = static_cast<float>(wanted.index * part);
    const LossValues losses = c.pass.Run(documents, weights, c.gradients);
    report.losses.ce += next * losses.ce;
    report.losses.mtp += draft * losses.mtp;
    report.losses.balance += part * losses.balance;
    report.losses.index += part * losses.index;
    report.losses.total += losses.total;
    report.losses.targets += losses.targets;
    for (size_t block = 0; block < losses.loads.size(); ++block) {
      std::vector<int64_t>& loads = report.losses.loads[block];
      loads.resize(losses.loads[block].size());
      for (size_t e = 0; e < loads.size(); ++e) loads[e] += losses.loads[block][e];
    }
    begin = end;
  }
  const bool indexer_only = config_.stages[stage_].indexer_only;
  if (indexer_only) {
    for (const ParameterArrays::Part& part : c.gradients.parts()) {
      if (!IsIndexer(part.spec)) std::ranges::fill(c.gradients.Values(part), 0.0f);
    }
  }
  report.gradient_norm = GradientNorm(c.gradients);
  report.step = state_.step + 1;
  report.stage = stage_;
  report.rate = config_.learning_rate.Rate(state_.step);
  report.tokens = all.rows;
  report.busiest_expert = BusiestExpert(report.losses.loads);
  if (!IsSpike(report)) {
    const bool clip = config_.gradient_clip > 0 && report.gradient_norm > config_.gradient_clip;
    const auto scale =
        clip ? static_cast<float>(config_.gradient_clip / report.gradient_norm) : 1.0f;
    const std::span<const std::vector<int64_t>> loads = report.losses.loads;
    optimizer_->Step(*weights_, c.gradients, indexer_only ? loads.first(0) : loads,
                     static_cast<float>(report.rate), scale, indexer_only ? &IsIndexer : nullptr);
    weights_->Store(backward_.get());
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

// Numbers that are none are a spike whatever the setting: they would spoil every weight.
bool Trainer::IsSpike(const StepReport& report) const {
  if (!std::isfinite(report.losses.total) || !std::isfinite(report.gradient_norm)) return true;
  return config_.spike_ratio > 0 && state_.average_loss > 0 &&
         state_.step >= config_.learning_rate.warmup_steps &&
         report.losses.total > config_.spike_ratio * state_.average_loss;
}

// Back to the latest checkpoint that every run has, and past the data that led here. What follows
// depends on that checkpoint alone, so a run that is interrupted and resumed takes the same way.
void Trainer::RollBack(const StepReport& report) {
  const DataPosition after = state_.position;
  const int64_t rollbacks = state_.rollbacks + 1;
  const std::string what = fmt::format("the loss of step {} is {:.4g} after an average of {:.4g}",
                                       report.step, report.losses.total, state_.average_loss);
  if (rollbacks > kMostRollbacks) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}, again after {} returns to the last checkpoint; lower "
                            "learning_rate.peak or raise spike_ratio",
                            what, kMostRollbacks));
  }
  std::vector<int64_t> steps = TrainingCheckpoints(Folder());
  std::erase_if(steps, [&](int64_t step) { return step % config_.checkpoint_steps != 0; });
  const std::optional<TrainingState> state = LoadLatest(steps);
  if (!state) {
    throw Error(ErrorCode::kInvalidArgument,
                what + " and there is no checkpoint to go back to; lower learning_rate.peak");
  }
  state_ = *state;
  state_.position = after;
  state_.rollbacks = rollbacks;
  EnterStage(config_.StageOf(state_.step));
  events_.note(fmt::format("{}: back to step {}, past the data since", what, state_.step));
}

void Trainer::Save() {
  SaveTrainingCheckpoint(Folder(), identity_, state_, *weights_, *optimizer_, pool_);
  // Those of interruptions go with the next one; those that a spike returns to are counted.
  std::vector<int64_t> steps = TrainingCheckpoints(Folder());
  int64_t kept = 0;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (*step % config_.checkpoint_steps == 0 && kept++ < config_.kept_checkpoints) continue;
    if (*step == state_.step) continue;
    std::error_code ignored;
    std::filesystem::remove(TrainingCheckpointFile(Folder(), *step), ignored);
  }
}

bool Trainer::Run() {
  const ScopedFlushDenormals flush;
  if (state_.step == 0 && TrainingCheckpoints(Folder()).empty()) Save();
  bool saved = true;
  while (state_.step < config_.steps()) {
    if (events_.cancelled()) {
      if (!saved) Save();
      return false;
    }
    if (config_.StageOf(state_.step) != stage_) EnterStage(config_.StageOf(state_.step));
    StepReport report = Step();
    if (IsSpike(report)) {
      RollBack(report);
      continue;
    }
    ++state_.step;
    const double loss = report.losses.total;
    state_.average_loss = state_.average_loss == 0
                              ? loss
                              : state_.average_loss + kAverageShare * (loss - state_.average_loss);
    const bool last = state_.step == config_.steps();
    if (config_.StageOf(state_.step) != stage_) state_.average_loss = 0;  // another loss from here
    if (last || state_.step % config_.validation_steps == 0) {
      if (validation_.documents() > 0) report.validation = Validate();
    }
    saved = last || state_.step % config_.checkpoint_steps == 0;
    // Told before it is saved: a step that is done again is told again, one that is not would be
    // missing.
    events_.step(report);
    if (saved) {
      state_.rollbacks = 0;
      Save();
    }
  }
  return true;
}

double Trainer::Validate() {
  const ScopedFlushDenormals flush;
  Model& model = computation_->model;
  Tensor streams, logits;
  double sum = 0;
  int64_t targets = 0, tokens = 0;
  for (int64_t i = 0; i < validation_.documents() && tokens < config_.validation_tokens; ++i) {
    const Document document = validation_.At(i);
    const auto cache = model.NewCache();
    const SequenceChunk chunk{document.tokens, cache.get()};
    model.Forward({&chunk, 1}, streams);
    model.Logits(streams, logits);
    for (size_t p = 1; p < document.tokens.size(); ++p) {
      if (!document.wanted.empty() && !document.wanted[p]) continue;
      const float* row = logits.Row(static_cast<int64_t>(p) - 1);
      const float most = *std::max_element(row, row + logits.width());
      double total = 0;
      for (int64_t v = 0; v < logits.width(); ++v)
        total += std::exp(static_cast<double>(row[v]) - most);
      sum += std::log(total) + most - row[document.tokens[p]];
      ++targets;
    }
    tokens += static_cast<int64_t>(document.tokens.size());
  }
  return targets == 0 ? 0 : sum / static_cast<double>(targets);
}

void Trainer::Export(const std::filesystem::path& companions, const std::filesystem::path& folder) {
  ExportModel(*weights_, companions, folder, pool_);
}

}  // namespace toaster
