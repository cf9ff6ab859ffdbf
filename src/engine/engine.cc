#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "engine/engine_sequence.h"

namespace toaster {

namespace {

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// A prompt of so many tokens takes so much longer than one more step that it is kept for being
// asked again.
constexpr int64_t kAskedAgain = 256;

// While every reader is behind, the engine looks this often whether one has caught up.
constexpr std::chrono::milliseconds kReaderPoll{5};

}  // namespace

Engine::Engine(RunningModel& running, const EngineLimits& limits, PrefixStore* store,
               const EngineMeters& meters)
    : running_(running),
      limits_(limits),
      prefixes_(limits.prefix_bytes),
      store_(store),
      meter_(meters.profile, running.expert_store(), meters.machine),
      decode_pass_(std::make_unique<Pass>()) {
  thread_ = std::thread([this] { Work(); });
}

Engine::~Engine() { Stop(); }

void Engine::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::unique_ptr<EngineStream> Engine::Submit(EngineRequest request) {
  const Config& config = running_.config();
  if (request.prompt.empty())
    throw Error(ErrorCode::kInvalidArgument, "the prompt has no tokens; give at least one");
  const auto size = static_cast<int64_t>(request.prompt.size());
  if (config.max_position_embeddings > 0 && size > config.max_position_embeddings) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the prompt has {} tokens, and the model's longest sequence "
                            "(max_position_embeddings) is {}; shorten it",
                            size, config.max_position_embeddings));
  }
  for (const int32_t token : request.prompt) {
    if (token >= 0 && token < config.vocab_size) continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("token {} is outside the vocabulary; this model knows tokens 0 to {}",
                            token, config.vocab_size - 1));
  }
  if (request.stable_tokens < 0 || request.stable_tokens > size) request.stable_tokens = size;
  // The last token is always computed, for its logits: the same prompt again goes on before it.
  if (size >= kAskedAgain) request.stable_tokens = std::min(request.stable_tokens, size - 1);
  auto sequence = std::make_unique<Sequence>(std::move(request), config.vocab_size);
  std::unique_ptr<EngineStream> stream(new EngineStream(sequence->shared));
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || live_ >= limits_.most_running + limits_.most_waiting) return nullptr;
    ++live_;
    ++accepted_;
    sequence->id = next_id_++;
    submitted_.push_back(std::move(sequence));
  }
  wake_.notify_one();
  return stream;
}

EngineStatus Engine::status() const {
  const std::lock_guard lock(mutex_);
  EngineStatus status = published_;
  status.waiting = accepted_;
  return status;
}

void Engine::Work() {
  const PlanOptions options{.most_tokens = limits_.chunk,
                            .least_tokens = std::min<int64_t>(32, limits_.chunk),
                            .pieces = running_.model().halves(),
                            .prefill_slice_seconds = limits_.prefill_slice_seconds};
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] {
        return stopping_ || !submitted_.empty() || !waiting_.empty() || !sequences_.empty();
      });
      if (stopping_) break;
      for (auto& sequence : submitted_) waiting_.push_back(std::move(sequence));
      submitted_.clear();
    }
    DropCancelled();
    Admit();
    JoinLeaders();
    const StepPlan plan = PlanStep(State(), options);
    const bool nothing = plan.kind == StepPlan::Kind::kNothing;
    if (!nothing) RunStep(plan);
    std::erase_if(sequences_, [](const auto& sequence) { return sequence->done; });
    Publish();
    if (nothing && !sequences_.empty()) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, kReaderPoll, [&] { return stopping_ || !submitted_.empty(); });
    }
  }
  while (!passes_.empty()) AbortPass(*passes_.back());
  for (auto& sequence : sequences_) Finish(*sequence, EngineEnd::kCancelled);
  for (auto& sequence : waiting_) Finish(*sequence, EngineEnd::kCancelled);
  for (auto& sequence : submitted_) Finish(*sequence, EngineEnd::kCancelled);
}

bool Engine::Ready(const Sequence& sequence) const {
  if (sequence.done || sequence.leader >= 0) return false;
  const std::lock_guard lock(sequence.shared->mutex);
  return static_cast<int64_t>(sequence.shared->tokens.size()) < limits_.most_unread;
}

StepState Engine::State() const {
  StepState state;
  std::map<std::string, int64_t> clients;  // by the first of their sequences
  state.costs = costs_;
  state.owed_to_decoding_seconds = owed_to_decoding_seconds_;
  state.decoding_catches_up = decoding_catches_up_;
  state.owed_to_first_seconds = owed_to_first_seconds_;
  std::vector<const Sequence*> followers;
  for (const auto& sequence : sequences_) {
    if (!sequence->done && sequence->leader >= 0) followers.push_back(sequence.get());
  }
  for (const auto& sequence : sequences_) {
    if (!Ready(*sequence)) continue;
    // Whoever waits for a prompt lends it its own urgency.
    int64_t priority = sequence->priority(), target = sequence->target();
    for (const Sequence* other : followers) {
      if (other->leader != sequence->id) continue;
      priority = std::max(priority, other->priority());
      target = std::min(target, other->join);
    }
    const std::string& name = sequence->request.client;
    const int64_t client =
        name.empty() ? sequence->id : clients.emplace(name, sequence->id).first->second;
    const SequenceWork work = {sequence->id,
                               client,
                               priority,
                               sequence->id,
                               std::max(target - sequence->computed, sequence->pass_tokens),
                               sequence->pass,
                               sequence->pass_tokens,
                               sequence->generated == 0};
    if (sequence->alone) {
      state.sequences = {work};
      return state;
    }
    state.sequences.push_back(work);
  }
  return state;
}

// A step ends where the cache is to be kept, or where others wait for it.
int64_t Engine::StepTokens(const Sequence& sequence, int64_t planned) const {
  if (planned == 1) return 1;
  const int64_t spacing = std::max<int64_t>(1, limits_.place_spacing);
  int64_t end = sequence.computed + planned;
  end = std::min(end, (sequence.computed / spacing + 1) * spacing);
  if (store_ != nullptr) {
    end = std::min(end, (sequence.computed / store_->spacing() + 1) * store_->spacing());
  }
  if (sequence.computed < sequence.request.stable_tokens) {
    end = std::min(end, sequence.request.stable_tokens);
  }
  const int64_t join = FirstJoin(sequence);
  if (sequence.computed < join) end = std::min(end, join);
  return end - sequence.computed;
}

// The pass that a plan is about, without its sequences if it begins.
Engine::Pass& Engine::PassOf(const StepPlan& plan) {
  switch (plan.kind) {
    case StepPlan::Kind::kContinue:
      return **std::find_if(passes_.begin(), passes_.end(),
                            [&](const auto& pass) { return pass->id == plan.pass; });
    case StepPlan::Kind::kBegin:
      passes_.push_back(std::make_unique<Pass>());
      passes_.back()->id = next_pass_++;
      return *passes_.back();
    default:
      return *decode_pass_;
  }
}

void Engine::BeginPass(const StepPlan& plan, Pass& pass) {
  pass.sequences.clear();
  pass.forward.chunks.clear();
  for (const StepPlan::Part& part : plan.parts) pass.sequences.push_back(FindSequence(part.id));
  for (size_t i = 0; i < plan.parts.size(); ++i) {
    Sequence& sequence = *pass.sequences[i];
    const int64_t tokens = StepTokens(sequence, plan.parts[i].tokens);
    pass.forward.chunks.push_back(
        {std::span(sequence.tokens)
             .subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(tokens)),
         sequence.cache.get()});
    if (plan.kind != StepPlan::Kind::kBegin) continue;
    pass.snapshots.push_back(sequence.cache->TakeSnapshot());
    sequence.pass = pass.id;
    sequence.pass_tokens = tokens;
  }
  running_.model().Begin(pass.forward);
}

void Engine::ErasePass(const Pass& pass) {
  for (Sequence* sequence : pass.sequences) sequence->pass = -1, sequence->pass_tokens = 0;
  std::erase_if(passes_, [&](const auto& other) { return other.get() == &pass; });
}

// As if it had never begun.
void Engine::AbortPass(Pass& pass) {
  for (size_t i = 0; i < pass.sequences.size(); ++i)
    pass.sequences[i]->cache->Restore(pass.snapshots[i]);
  ErasePass(pass);
}

// Moves its sequences on, and computes the logits of those that sample now: they are returned.
std::vector<Engine::Sequence*> Engine::EndPass(Pass& pass) {
  std::vector<Sequence*> sampled;
  const Tensor& streams = pass.forward.streams;
  last_.Reshape(
      {static_cast<int64_t>(pass.sequences.size()), streams.extent(1), streams.extent(2)});
  int64_t row = 0;
  for (size_t i = 0; i < pass.sequences.size(); ++i) {
    Sequence& sequence = *pass.sequences[i];
    const auto tokens = static_cast<int64_t>(pass.forward.chunks[i].tokens.size());
    row += tokens;
    sequence.pass = -1;
    sequence.pass_tokens = 0;
    Advance(sequence, tokens);
    if (sequence.done || sequence.computed < sequence.size()) continue;
    std::copy_n(streams.Row(row - 1), streams.width(),
                last_.Row(static_cast<int64_t>(sampled.size())));
    sampled.push_back(&sequence);
  }
  if (!sampled.empty()) {
    last_.Reshape({static_cast<int64_t>(sampled.size()), streams.extent(1), streams.extent(2)});
    running_.model().Logits(last_, logits_);
  }
  return sampled;
}

void Engine::RunStep(const StepPlan& plan) {
  const auto start = SteadyClock::now();
  meter_.Begin();
  Pass& pass = PassOf(plan);
  int64_t pieces = 0;
  bool more = true;
  try {
    if (plan.kind != StepPlan::Kind::kContinue) BeginPass(plan, pass);
    do {
      more = running_.model().RunHalf(pass.forward);
      ++pieces;
    } while (more && plan.kind == StepPlan::Kind::kDecode);
  } catch (...) {
    RecoverFrom(pass, std::current_exception());
    return;
  }
  std::vector<Sequence*> sampled;
  if (!more) sampled = EndPass(pass);
  Charge(pass, meter_.End(SecondsSince(start)));
  for (size_t i = 0; i < sampled.size(); ++i) {
    Sample(*sampled[i],
           {logits_.Row(static_cast<int64_t>(i)), static_cast<size_t>(logits_.width())});
  }
  ++counters_.steps;
  double seconds = SecondsSince(start);
  if (limits_.step_seconds) {
    seconds = limits_.step_seconds(
        pass.forward.streams.rows(),
        static_cast<double>(pieces) / static_cast<double>(running_.model().halves()));
  }
  Account(plan, pass, seconds);
  if (!more && plan.kind != StepPlan::Kind::kDecode) ErasePass(pass);
}

// What a step's time means for those that come next.
void Engine::Account(const StepPlan& plan, Pass& pass, double seconds) {
  if (plan.kind == StepPlan::Kind::kDecode) {
    owed_to_decoding_seconds_ = std::max(0.0, owed_to_decoding_seconds_ - seconds);
    decoding_catches_up_ = owed_to_decoding_seconds_ > 0;
    return;
  }
  decoding_catches_up_ = false;
  const bool decodes = std::any_of(sequences_.begin(), sequences_.end(), [&](const auto& sequence) {
    return Ready(*sequence) && sequence->pass < 0 && sequence->generated > 0;
  });
  // More than as much: after a prefill, decoding finds nothing of its own in the caches.
  constexpr double kDecodingShare = 1.5;
  if (decodes) owed_to_decoding_seconds_ += kDecodingShare * seconds;
  const bool firsts = std::any_of(pass.sequences.begin(), pass.sequences.end(),
                                  [&](const Sequence* part) { return part->id == plan.first; });
  owed_to_first_seconds_ = firsts ? std::max(0.0, owed_to_first_seconds_ - seconds)
                                  : owed_to_first_seconds_ + seconds / 3;

  // What a token costs, by the last few thousand: a short prompt's few say little about it.
  pass.seconds += seconds;
  if (pass.forward.halves_done < running_.model().halves()) return;
  constexpr double kRemembered = 2048;
  const auto tokens = static_cast<double>(pass.forward.streams.rows());
  double& known = costs_.prefill_token_seconds;
  known = known > 0 ? (known * kRemembered + pass.seconds) / (kRemembered + tokens)
                    : pass.seconds / tokens;
}

// Each of a step's sequences has a share of what it read, by its tokens.
void Engine::Charge(const Pass& pass, const StepBytes& bytes) {
  const auto tokens = static_cast<double>(pass.forward.tokens.size());
  for (size_t i = 0; i < pass.sequences.size(); ++i) {
    Sequence& sequence = *pass.sequences[i];
    const double share = static_cast<double>(pass.forward.chunks[i].tokens.size()) / tokens;
    EngineFigures& figures = sequence.figures;
    figures.memory_bytes += share * bytes.memory;
    sequence.expert_bytes += share * bytes.disk;
    figures.disk_bytes = sequence.expert_bytes;
    if (sequence.store_bytes != nullptr)
      figures.disk_bytes += static_cast<double>(*sequence.store_bytes);
  }
  counters_.read_bytes.memory += bytes.memory;
  counters_.read_bytes.disk += bytes.disk;
}

void Engine::Advance(Sequence& sequence, int64_t tokens) {
  sequence.computed += tokens;
  counters_.computed_tokens += tokens;
  const bool inside_prompt = sequence.computed <= sequence.prompt_size();
  if (inside_prompt && (sequence.computed == sequence.request.stable_tokens ||
                        sequence.computed % std::max<int64_t>(1, limits_.place_spacing) == 0)) {
    prefixes_.Keep(sequence.request.owner, sequence.computed_tokens(), *sequence.cache);
  }
  if (IsStorePlace(sequence)) {
    store_->Put(sequence.request.owner, sequence.computed_tokens(), *sequence.cache);
  }
  if (sequence.given_up || (sequence.abandoned && sequence.computed >= sequence.target())) {
    Finish(sequence, EngineEnd::kCancelled);
  }
}

void Engine::Sample(Sequence& sequence, std::span<const float> logits) {
  sequence.alone = false;
  const auto now = SteadyClock::now();
  if (sequence.generated == 0) sequence.first_token = now;
  const auto seconds = [](SteadyClock::duration time) {
    return std::chrono::duration<double>(time).count();
  };
  sequence.figures.prefill_seconds = seconds(sequence.first_token - sequence.started);
  sequence.figures.decode_seconds = seconds(now - sequence.first_token);

  EngineToken token;
  try {
    token.token = sequence.sampler.Sample(logits, sequence.size());
  } catch (...) {
    sequence.shared->failure = std::current_exception();
    Finish(sequence, EngineEnd::kCancelled);
    return;
  }
  const Config& config = running_.config();
  if (token.token == config.eos_token_id && !sequence.request.ignore_eos) {
    Finish(sequence, EngineEnd::kEndToken);
    return;
  }
  if (sequence.request.logprobs >= 0) {
    token.probability = LogProbabilityOf(logits, token.token);
    token.alternatives = MostLikely(logits, sequence.request.logprobs);
  }
  sequence.sampler.Accept(token.token);
  sequence.tokens.push_back(token.token);
  ++sequence.generated;
  ++counters_.generated_tokens;
  {
    const std::lock_guard lock(sequence.shared->mutex);
    sequence.shared->tokens.push_back(std::move(token));
    sequence.shared->figures = sequence.figures;
  }
  sequence.shared->wake.notify_one();
  const bool full =
      config.max_position_embeddings > 0 && sequence.size() > config.max_position_embeddings;
  if (sequence.generated >= sequence.request.max_tokens || full) {
    Finish(sequence, EngineEnd::kLength);
  }
}

// The step left its caches between two layers, and any of its sequences may be why.
void Engine::RecoverFrom(Pass& pass, const std::exception_ptr& failure) {
  bool damage = false;  // nobody's fault: what was on disk is computed again
  try {
    std::rethrow_exception(failure);
  } catch (const PrefixDamage&) {
    damage = true;
  } catch (...) {
  }
  const std::vector<Sequence*> sequences = pass.sequences;
  ErasePass(pass);
  for (Sequence* part : sequences) {
    Sequence& sequence = *part;
    sequence.computed = 0;
    sequence.cache = nullptr;
    if (damage) {
      FindPrefix(sequence);
      sequence.figures.cached_tokens = std::min(sequence.figures.cached_tokens, sequence.computed);
      sequence.figures.miss_reason = "a stored piece was damaged and is computed again";
      continue;
    }
    if (sequences.size() == 1) {
      sequence.shared->failure = failure;
      Finish(sequence, EngineEnd::kCancelled);
      continue;
    }
    FindPrefix(sequence);
    sequence.alone = true;
  }
}

void Engine::Publish() {
  EngineStatus status = counters_;
  for (const auto& sequence : sequences_) {
    status.running.push_back(
        {sequence->id, sequence->size(), sequence->computed, sequence->abandoned});
  }
  status.places = prefixes_.places();
  status.prefix_bytes = prefixes_.bytes();
  status.limit_share = meter_.limit_share();
  if (running_.expert_store() != nullptr) status.experts = running_.expert_store()->figures();
  const std::lock_guard lock(mutex_);
  published_ = std::move(status);
}

}  // namespace toaster
