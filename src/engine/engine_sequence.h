#pragma once

// What Engine keeps of each request and of each pass; for its own files.

#include <atomic>
#include <chrono>
#include <limits>

#include "engine/engine.h"

namespace toaster {

using SteadyClock = std::chrono::steady_clock;

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
  /// Whoever waits for an answer goes before those whose clients have gone.
  int64_t priority() const {
    return abandoned ? std::numeric_limits<int64_t>::min() : request.priority;
  }
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
  /// Its client has gone; and nobody is expected back: it ends as soon as its pass lets it.
  bool abandoned = false, given_up = false;
  bool done = false;
  int64_t pass = -1, pass_tokens = 0;  ///< the prefill pass that it is in
  /// Another whose prompt is being read and begins with the same `join` tokens: this one waits for
  /// it to have come there. -1: none.
  int64_t leader = -1, join = 0;
  SteadyClock::time_point submitted = SteadyClock::now(), started, first_token, give_up;
  EngineFigures figures;
  std::shared_ptr<std::atomic<int64_t>> store_bytes;  ///< of its cache; null if not from the store
  double expert_bytes = 0;                            ///< its share of what steps read from disk
};

/// A forward pass under way, and whose it is.
struct Engine::Pass {
  int64_t id = 0;
  ForwardPass forward;
  std::vector<Sequence*> sequences;      ///< in the order of its chunks
  std::vector<CacheSnapshot> snapshots;  ///< before it, of each; none for decoding
  double seconds = 0;                    ///< of its steps so far
};

}  // namespace toaster
