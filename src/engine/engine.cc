#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>

#include "base/error.h"

namespace toaster {

namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// While every reader is behind, the engine looks this often whether one has caught up.
constexpr std::chrono::milliseconds kReaderPoll{5};

}  // namespace

/// Between the engine's thread and the reader's.
struct EngineStream::Shared {
  std::atomic<bool> cancelled{false};

  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<EngineToken> tokens;
  bool ended = false;
  EngineEnd end = EngineEnd::kCancelled;
  EngineFigures figures;
  std::exception_ptr failure;
};

EngineStream::~EngineStream() { shared_->cancelled = true; }

EngineStream::Next EngineStream::Wait(std::chrono::milliseconds time, EngineToken& token) {
  std::unique_lock lock(shared_->mutex);
  shared_->wake.wait_for(lock, time, [&] { return !shared_->tokens.empty() || shared_->ended; });
  if (!shared_->tokens.empty()) {
    token = std::move(shared_->tokens.front());
    shared_->tokens.pop_front();
    return Next::kToken;
  }
  if (!shared_->ended) return Next::kNothing;
  if (shared_->failure) std::rethrow_exception(shared_->failure);
  return Next::kEnd;
}

EngineEnd EngineStream::end() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->end;
}

EngineFigures EngineStream::figures() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->figures;
}

/// A request with its timeline. Belongs to the engine's thread once it is submitted.
struct Engine::Sequence {
  Sequence(EngineRequest request_in, int64_t vocab_size)
      : request(std::move(request_in)),
        tokens(request.prompt),
        sampler(request.sampling, vocab_size) {
    sampler.AcceptPrompt(tokens);
  }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t prompt_size() const { return static_cast<int64_t>(request.prompt.size()); }
  /// Where the cache is to stand: an abandoned prefill leaves its last token to whoever comes back.
  int64_t target() const { return abandoned ? prompt_size() - 1 : size(); }
  std::span<const int32_t> computed_tokens() const {
    return std::span(tokens).first(static_cast<size_t>(computed));
  }

  EngineRequest request;
  std::vector<int32_t> tokens;  ///< prompt and reply
  Sampler sampler;
  SharedStream shared = std::make_shared<EngineStream::Shared>();
  int64_t id = 0;
  std::unique_ptr<SequenceCache> cache;
  int64_t computed = 0;  ///< tokens that are in the cache
  int64_t generated = 0;
  bool alone = false;  ///< a step with others failed: this one goes by itself to its next token
  bool abandoned = false, done = false;
  SteadyClock::time_point submitted = SteadyClock::now(), started, first_token, give_up;
  EngineFigures figures;
  std::shared_ptr<std::atomic<int64_t>> disk_bytes;  ///< of its cache; null if not from the store
};

Engine::Engine(RunningModel& running, const EngineLimits& limits, PrefixStore* store)
    : running_(running), limits_(limits), prefixes_(limits.prefix_bytes), store_(store) {
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
  const PlanOptions options{limits_.chunk, std::min<int64_t>(32, limits_.chunk),
                            limits_.prefill_slice_seconds};
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
    const StepPlan plan = PlanStep(State(), options);
    if (!plan.parts.empty()) RunStep(plan);
    std::erase_if(sequences_, [](const auto& sequence) { return sequence->done; });
    Publish();
    if (plan.parts.empty() && !sequences_.empty()) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, kReaderPoll, [&] { return stopping_ || !submitted_.empty(); });
    }
  }
  for (auto& sequence : sequences_) Finish(*sequence, EngineEnd::kCancelled);
  for (auto& sequence : waiting_) Finish(*sequence, EngineEnd::kCancelled);
  for (auto& sequence : submitted_) Finish(*sequence, EngineEnd::kCancelled);
}

void Engine::DropCancelled() {
  const auto now = SteadyClock::now();
  const size_t before = waiting_.size();
  std::erase_if(waiting_, [](const auto& sequence) { return sequence->shared->cancelled.load(); });
  if (waiting_.size() < before) {
    const std::lock_guard lock(mutex_);
    accepted_ -= static_cast<int64_t>(before - waiting_.size());
    live_ -= static_cast<int64_t>(before - waiting_.size());
  }
  for (auto& sequence : sequences_) {
    if (sequence->abandoned) {
      if (now >= sequence->give_up) Finish(*sequence, EngineEnd::kCancelled);
    } else if (sequence->shared->cancelled) {
      sequence->abandoned = true;
      {
        const std::lock_guard lock(mutex_);
        --live_;
      }
      sequence->give_up = now + std::chrono::duration_cast<SteadyClock::duration>(
                                    std::chrono::duration<double>(limits_.linger_seconds));
      const bool rest = sequence->computed < sequence->target();
      if (!rest || limits_.linger_seconds <= 0) Finish(*sequence, EngineEnd::kCancelled);
    }
  }
  std::erase_if(sequences_, [](const auto& sequence) { return sequence->done; });
}

void Engine::Admit() {
  for (;;) {
    std::map<std::string, int64_t> of_client;
    int64_t running = 0;
    for (const auto& sequence : sequences_) {
      if (sequence->abandoned) continue;
      ++running;
      if (!sequence->request.client.empty()) ++of_client[sequence->request.client];
    }
    if (waiting_.empty() || running >= limits_.most_running) return;
    // The highest priority; then whoever has the least running; then who came first.
    const auto next =
        std::min_element(waiting_.begin(), waiting_.end(), [&](const auto& a, const auto& b) {
          const EngineRequest &x = a->request, &y = b->request;
          if (x.priority != y.priority) return x.priority > y.priority;
          if (of_client[x.client] != of_client[y.client])
            return of_client[x.client] < of_client[y.client];
          return a->id < b->id;
        });
    std::unique_ptr<Sequence> sequence = std::move(*next);
    waiting_.erase(next);
    {
      const std::lock_guard lock(mutex_);
      --accepted_;
    }
    Start(*sequence);
    sequences_.push_back(std::move(sequence));
  }
}

void Engine::Start(Sequence& sequence) {
  sequence.started = SteadyClock::now();
  FindPrefix(sequence);
  if (Adopt(sequence)) sequence.figures.cached_in = "memory";
  sequence.figures.cached_tokens = sequence.computed;
  sequence.figures.queue_seconds =
      std::chrono::duration<double>(sequence.started - sequence.submitted).count();
  counters_.cached_tokens += sequence.computed;
}

// Memory, then disk, then nothing: the longest place wins, and of equal ones the nearer.
void Engine::FindPrefix(Sequence& sequence) {
  const std::string& owner = sequence.request.owner;
  PrefixCache::Hit hit = prefixes_.Find(owner, sequence.tokens);
  sequence.computed = hit.tokens;
  sequence.cache = std::move(hit.cache);
  sequence.disk_bytes = nullptr;
  sequence.figures.miss_reason = std::move(hit.miss_reason);
  sequence.figures.cached_in = sequence.computed > 0 ? "memory" : "";
  if (store_ != nullptr && sequence.computed + 1 < sequence.size()) {
    PrefixStore::Hit stored = store_->Find(owner, sequence.tokens, sequence.computed);
    if (stored.cache != nullptr) {
      sequence.computed = stored.tokens;
      sequence.cache = std::move(stored.cache);
      sequence.disk_bytes = std::move(stored.bytes_read);
      sequence.figures.cached_in = "disk";
      if (sequence.computed + 1 == sequence.size()) {
        sequence.figures.miss_reason = "";
      } else {
        sequence.figures.miss_reason = "the rest is new";
      }
      prefixes_.Keep(owner, sequence.computed_tokens(), *sequence.cache);
    }
  }
  if (sequence.cache == nullptr) sequence.cache = running_.model().NewCache();
}

bool Engine::IsStorePlace(const Sequence& sequence) const {
  return store_ != nullptr && (sequence.computed == sequence.request.stable_tokens ||
                               sequence.computed % store_->spacing() == 0);
}

// Takes over a prefill whose client has gone, if all that it computed is of use here and more than
// what is cached.
bool Engine::Adopt(Sequence& sequence) {
  for (auto& other : sequences_) {
    if (!other->abandoned || other->done || other->request.owner != sequence.request.owner)
      continue;
    if (other->computed <= sequence.computed || other->computed >= sequence.size()) continue;
    const auto computed = other->computed_tokens();
    if (!std::equal(computed.begin(), computed.end(), sequence.tokens.begin())) continue;
    sequence.cache = std::move(other->cache);
    sequence.computed = other->computed;
    sequence.figures.miss_reason = "";
    if (sequence.computed + 1 < sequence.size()) {
      sequence.figures.miss_reason = "a prefill that was broken off is gone on with";
    }
    other->done = true;
    std::erase_if(sequences_, [](const auto& item) { return item->done; });
    return true;
  }
  return false;
}

bool Engine::Ready(const Sequence& sequence) const {
  if (sequence.done) return false;
  const std::lock_guard lock(sequence.shared->mutex);
  return static_cast<int64_t>(sequence.shared->tokens.size()) < limits_.most_unread;
}

StepState Engine::State() const {
  StepState state;
  std::map<std::string, int64_t> clients;  // by the first of their sequences
  state.costs = costs_;
  state.owed_to_decoding_seconds = owed_to_decoding_seconds_;
  for (const auto& sequence : sequences_) {
    if (!Ready(*sequence)) continue;
    const int64_t priority =
        sequence->abandoned ? std::numeric_limits<int64_t>::min() : sequence->request.priority;
    const std::string& name = sequence->request.client;
    const int64_t client =
        name.empty() ? sequence->id : clients.emplace(name, sequence->id).first->second;
    const SequenceWork work = {sequence->id, client, priority, sequence->id,
                               sequence->target() - sequence->computed};
    if (sequence->alone) {
      state.sequences = {work};
      return state;
    }
    state.sequences.push_back(work);
  }
  return state;
}

// A step ends where the cache is to be kept.
int64_t Engine::StepTokens(const Sequence& sequence, int64_t planned) const {
  const int64_t spacing = std::max<int64_t>(1, limits_.place_spacing);
  int64_t end = sequence.computed + planned;
  end = std::min(end, (sequence.computed / spacing + 1) * spacing);
  if (store_ != nullptr) {
    end = std::min(end, (sequence.computed / store_->spacing() + 1) * store_->spacing());
  }
  if (sequence.computed < sequence.request.stable_tokens) {
    end = std::min(end, sequence.request.stable_tokens);
  }
  return end - sequence.computed;
}

void Engine::RunStep(const StepPlan& plan) {
  const auto start = SteadyClock::now();
  std::vector<Sequence*> parts;
  std::vector<SequenceChunk> chunks;
  int64_t prefill_tokens = 0;
  bool decodes = false;
  for (const StepPlan::Part& part : plan.parts) {
    Sequence& sequence = **std::find_if(sequences_.begin(), sequences_.end(),
                                        [&](const auto& item) { return item->id == part.id; });
    const bool prefills = sequence.target() - sequence.computed > 1;
    const int64_t tokens = StepTokens(sequence, part.tokens);
    if (prefills) {
      prefill_tokens += tokens;
    } else {
      decodes = true;
    }
    parts.push_back(&sequence);
    chunks.push_back(
        {std::span(sequence.tokens)
             .subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(tokens)),
         sequence.cache.get()});
  }
  try {
    running_.model().Forward(chunks, streams_);
  } catch (...) {
    RecoverFrom(plan, std::current_exception());
    return;
  }

  // The rows after which a token is sampled.
  std::vector<Sequence*> sampled;
  last_.Reshape({static_cast<int64_t>(parts.size()), streams_.extent(1), streams_.extent(2)});
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto tokens = static_cast<int64_t>(chunks[i].tokens.size());
    row += tokens;
    Advance(*parts[i], tokens);
    if (parts[i]->done || parts[i]->computed < parts[i]->size()) continue;
    std::copy_n(streams_.Row(row - 1), streams_.width(),
                last_.Row(static_cast<int64_t>(sampled.size())));
    sampled.push_back(parts[i]);
  }
  if (!sampled.empty()) {
    last_.Reshape({static_cast<int64_t>(sampled.size()), streams_.extent(1), streams_.extent(2)});
    running_.model().Logits(last_, logits_);
    for (size_t i = 0; i < sampled.size(); ++i) {
      Sample(*sampled[i],
             {logits_.Row(static_cast<int64_t>(i)), static_cast<size_t>(logits_.width())});
    }
  }

  ++counters_.steps;
  const double seconds = limits_.step_seconds ? limits_.step_seconds(row) : SecondsSince(start);
  constexpr int64_t kTelling = 16;  // fewer tokens say little about what a token costs
  if (prefill_tokens >= kTelling) {
    const double cost = seconds / static_cast<double>(prefill_tokens);
    double& known = costs_.prefill_token_seconds;
    known = known > 0 ? (known + cost) / 2 : cost;
  }
  if (prefill_tokens == 0) {
    owed_to_decoding_seconds_ = std::max(0.0, owed_to_decoding_seconds_ - seconds);
  } else if (decodes) {
    owed_to_decoding_seconds_ += seconds;
  }
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
  if (sequence.disk_bytes != nullptr) sequence.figures.disk_bytes = *sequence.disk_bytes;
  if (sequence.abandoned && sequence.computed >= sequence.target()) {
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
void Engine::RecoverFrom(const StepPlan& plan, const std::exception_ptr& failure) {
  bool damage = false;  // nobody's fault: what was on disk is computed again
  try {
    std::rethrow_exception(failure);
  } catch (const PrefixDamage&) {
    damage = true;
  } catch (...) {
  }
  for (const StepPlan::Part& part : plan.parts) {
    Sequence& sequence = **std::find_if(sequences_.begin(), sequences_.end(),
                                        [&](const auto& item) { return item->id == part.id; });
    sequence.computed = 0;
    sequence.cache = nullptr;
    if (damage) {
      FindPrefix(sequence);
      sequence.figures.cached_tokens = std::min(sequence.figures.cached_tokens, sequence.computed);
      sequence.figures.miss_reason = "a stored piece was damaged and is computed again";
      continue;
    }
    if (plan.parts.size() == 1) {
      sequence.shared->failure = failure;
      Finish(sequence, EngineEnd::kCancelled);
      continue;
    }
    FindPrefix(sequence);
    sequence.alone = true;
  }
}

void Engine::Finish(Sequence& sequence, EngineEnd end) {
  sequence.done = true;
  if (!sequence.abandoned) {
    const std::lock_guard lock(mutex_);
    --live_;
  }
  if (sequence.computed > 0) {
    prefixes_.Keep(sequence.request.owner, sequence.computed_tokens(), *sequence.cache);
  }
  {
    const std::lock_guard lock(sequence.shared->mutex);
    sequence.shared->ended = true;
    sequence.shared->end = end;
    sequence.shared->figures = sequence.figures;
  }
  sequence.shared->wake.notify_one();
  if (sequence.computed > 0 && store_ != nullptr) {
    store_->Put(sequence.request.owner, sequence.computed_tokens(), *sequence.cache);
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
  const std::lock_guard lock(mutex_);
  published_ = std::move(status);
}

}  // namespace toaster
