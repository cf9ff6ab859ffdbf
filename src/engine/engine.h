#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine_stream.h"
#include "engine/plan_step.h"
#include "engine/prefix_cache.h"
#include "engine/prefix_store.h"
#include "engine/running_model.h"
#include "engine/sampler.h"
#include "engine/step_meter.h"

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
  /// What so many tokens count as having taken in that share of a pass, so that a test can
  /// plan with a time of its own; on the engine's thread, after each step. Empty: the time it took.
  std::function<double(int64_t tokens, double share)> step_seconds;
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
  StepBytes read_bytes;                       ///< since the start
  double limit_share = 0;                     ///< see StepMeter
  std::optional<ExpertStoreFigures> experts;  ///< if they are read from files
};

/// What an engine needs to know how much it reads and how close to the limit it is; see StepMeter.
struct EngineMeters {
  Profile* profile = nullptr;
  MachineLimits machine;
};

/// Runs many requests on one model: one thread owns the model and computes a step of PlanStep()
/// after the other. A request that begins like one whose prompt is being read waits for it and goes
/// on from there. What a request samples depends on itself alone: not on its company, on what was
/// cached, or on how it was cut into steps. An error in a step is told to the request that causes
/// it; the others are computed anew from their nearest kept place and go on. Submit() and status()
/// are for any thread.
class Engine {
 public:
  /// The model is borrowed and belongs to the engine's thread until it is destroyed; so is the
  /// store, which may be null: what the prefix cache gives up, or another process computed, comes
  /// from there.
  Engine(RunningModel& running, const EngineLimits& limits, PrefixStore* store = nullptr,
         const EngineMeters& meters = {});
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
  struct Pass;
  using SharedStream = std::shared_ptr<EngineStream::Shared>;

  void Work();

  // Which sequences there are: engine_sequences.cc.
  void DropCancelled();
  void GiveUp(Sequence& sequence);
  void Admit();
  void Start(Sequence& sequence);
  void FindPrefix(Sequence& sequence);
  void FollowAnother(Sequence& sequence);
  void JoinLeaders();
  void TakeFrom(Sequence& leader, Sequence& sequence);
  Sequence* FindSequence(int64_t id) const;
  bool IsStorePlace(const Sequence& sequence) const;
  void Finish(Sequence& sequence, EngineEnd end);

  // What they compute: engine.cc.
  StepState State() const;
  bool Ready(const Sequence& sequence) const;
  int64_t FirstJoin(const Sequence& leader) const;
  int64_t StepTokens(const Sequence& sequence, int64_t planned) const;
  void RunStep(const StepPlan& plan);
  Pass& PassOf(const StepPlan& plan);
  void BeginPass(const StepPlan& plan, Pass& pass);
  std::vector<Sequence*> EndPass(Pass& pass);
  void AbortPass(Pass& pass);
  void ErasePass(const Pass& pass);
  void Charge(const Pass& pass, const StepBytes& bytes);
  void Account(const StepPlan& plan, Pass& pass, double seconds);
  void Advance(Sequence& sequence, int64_t tokens);
  void Sample(Sequence& sequence, std::span<const float> logits);
  void RecoverFrom(Pass& pass, const std::exception_ptr& failure);
  void Publish();

  RunningModel& running_;
  const EngineLimits limits_;
  PrefixCache prefixes_;
  PrefixStore* const store_;
  StepMeter meter_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<std::unique_ptr<Pass>> passes_;  // of prefills, under way
  std::unique_ptr<Pass> decode_pass_;          // its buffers are kept
  StepCosts costs_;
  double owed_to_decoding_seconds_ = 0, owed_to_first_seconds_ = 0;
  bool decoding_catches_up_ = false;
  int64_t next_id_ = 0, next_pass_ = 0;
  Tensor last_, logits_;
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
