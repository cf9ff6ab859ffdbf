#pragma once

// What an engine gives to whoever asked: the tokens of a request as they come.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/log_probabilities.h"

namespace toaster {

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
  /// Read for it so far: its share of its steps' weights and caches, by the tokens it had in them,
  /// and what came from the prefix store.
  double memory_bytes = 0, disk_bytes = 0;
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
  struct Shared;  ///< what the engine's thread and the reader's share
  explicit EngineStream(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  std::shared_ptr<Shared> shared_;
};

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

}  // namespace toaster
