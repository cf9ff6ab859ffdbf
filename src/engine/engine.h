#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/log_probabilities.h"
#include "engine/plan_step.h"
#include "engine/prefix_cache.h"
#include "engine/prefix_store.h"
#include "engine/running_model.h"
#include "engine/sampler.h"

namespace toaster {

struct EngineLimits {
  int64_t most_running = 16;         ///< sequences that compute at a time
  int64_t most_waiting = 64;         ///< requests beyond them; more are refused
  int64_t chunk = 2048;              ///< tokens of prefill in one step, at most
  double prefill_slice_seconds = 1;  ///< see PlanOptions
  double linger_seconds = 60;        ///< a prefill goes on so long after its client has gone
  int64_t place_spacing = 4096;      ///< tokens between places of a long prompt that are kept
  int64_t prefix_bytes = 1ll << 30;  ///< of the prefix cache
  int64_t most_unread = 1024;        ///< tokens that a reader may be behind before it is paused
  /// What a step of so many tokens counts as having taken, so that a test can plan with a time of
  /// its own; on the engine's thread, after the step. Empty: the time it took.
  std::function<double(int64_t tokens)> step_seconds;
};

/// Tokens to go on from, and how.
struct EngineRequest {
  std::vector<int32_t> prompt;
  int64_t stable_tokens = -1;  ///< of the prompt: what a later one is sure to begin with; -1: all
  SamplingOptions sampling;
  int64_t max_tokens = 1;
  bool ignore_eos = false;
  int64_t logprobs = -1;  ///< alternatives to tell per token; -1: no log probabilities
  std::string owner;      ///< prefixes are shared within one owner only
  std::string client;     ///< whoever shares a name shares a turn; "": nobody does
  int64_t priority = 0;   ///< higher goes first
};

struct EngineToken {
  int32_t token = 0;
  LogProbability probability;  ///< if asked for
  std::vector<LogProbability> alternatives;
};

enum class EngineEnd {
  kEndToken,   ///< the model ended it
  kLength,     ///< max_tokens, or the model's longest sequence
  kCancelled,  ///< the engine stopped
};

/// What a request came to, for its ledger.
struct EngineFigures {
  int64_t cached_tokens = 0;  ///< of the prompt
  std::string miss_reason;    ///< why the others were computed; empty: all but the last were there
  std::string cached_in;      ///< "memory" or "disk": where the cached ones were; empty: none were
  int64_t disk_bytes = 0;     ///< read from the prefix store for it, so far
  double queue_seconds = 0, prefill_seconds = 0, decode_seconds = 0;
};

/// The tokens of one request as they come. One thread; destroying it cancels the request, whose
/// prefill goes on for a while in case the client comes back.
class EngineStream {
 public:
  enum class Next {
    kToken,
    kNothing,  ///< the time has passed
    kEnd,
  };
  ~EngineStream();
  /// Waits for a token. Throws what the request failed with.
  Next Wait(std::chrono::milliseconds time, EngineToken& token);
  /// After kEnd.
  EngineEnd end() const;
  EngineFigures figures() const;

 private:
  friend class Engine;
  struct Shared;
  explicit EngineStream(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  std::shared_ptr<Shared> shared_;
};

/// What an engine does, for people and meters.
struct EngineStatus {
  struct Slot {
    int64_t id = 0;
    int64_t tokens = 0;  ///< known, of them `computed` are in its cache
    int64_t computed = 0;
    bool abandoned = false;  ///< its client has gone
  };
  std::vector<Slot> running;
  int64_t waiting = 0;
  int64_t places = 0, prefix_bytes = 0;  ///< of the prefix cache
  int64_t computed_tokens = 0;           ///< since the start: all, cached ones not
  int64_t cached_tokens = 0;             ///< since the start: of prompts
  int64_t generated_tokens = 0;
  int64_t steps = 0;
};

/// Runs many requests on one model: one thread owns the model and computes a step of PlanStep()
/// after the other, in which prefills and decoding sequences share the forward pass. What a request
/// samples depends on itself alone: not on its company, on what was cached, or on how it was cut
/// into steps. An error in a step is told to the request that causes it; the others are computed
/// anew from their nearest kept place and go on. Submit() and status() are for any thread.
class Engine {
 public:
  /// The model is borrowed and belongs to the engine's thread until it is destroyed; so is the
  /// store, which may be null: what the prefix cache gives up, or another process computed, comes
  /// from there.
  Engine(RunningModel& running, const EngineLimits& limits, PrefixStore* store = nullptr);
  /// Cancels what is left.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Cancels what is left: every stream ends. Whatever is submitted afterwards is refused.
  void Stop();

  /// Null if too many are waiting. Throws Error(kInvalidArgument) for a prompt or sampling options
  /// that cannot run.
  std::unique_ptr<EngineStream> Submit(EngineRequest request);

  EngineStatus status() const;

 private:
  struct Sequence;
  using SharedStream = std::shared_ptr<EngineStream::Shared>;

  void Work();
  void DropCancelled();
  void Admit();
  void Start(Sequence& sequence);
  void FindPrefix(Sequence& sequence);
  bool IsStorePlace(const Sequence& sequence) const;
  bool Adopt(Sequence& sequence);
  StepState State() const;
  bool Ready(const Sequence& sequence) const;
  void RunStep(const StepPlan& plan);
  int64_t StepTokens(const Sequence& sequence, int64_t planned) const;
  void Advance(Sequence& sequence, int64_t tokens);
  void Sample(Sequence& sequence, std::span<const float> logits);
  void RecoverFrom(const StepPlan& plan, const std::exception_ptr& failure);
  void Finish(Sequence& sequence, EngineEnd end);
  void Publish();

  RunningModel& running_;
  const EngineLimits limits_;
  PrefixCache prefixes_;
  PrefixStore* const store_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  StepCosts costs_;
  double owed_to_decoding_seconds_ = 0;
  int64_t next_id_ = 0;
  Tensor streams_, last_, logits_;
  EngineStatus counters_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  int64_t live_ = 0;      ///< requests that somebody waits for
  int64_t accepted_ = 0;  ///< of them submitted or waiting
  EngineStatus published_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace toaster
