#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "engine/step_meter.h"

namespace toaster {

/// Tokens to go on from, and how.
struct GenerationJob {
  std::vector<int32_t> prompt;
  int64_t stable_tokens = 0;  ///< of the prompt: what the next turn is sure to begin with
  SamplingOptions sampling;
  int64_t max_tokens = 1;
  bool ignore_eos = false;
  int64_t logprobs = -1;  ///< alternatives to tell per token; -1: no log probabilities
  std::string user_id;    ///< prefixes are shared within one user only
};

struct GeneratedLogprob {
  int32_t token = 0;
  float logprob = 0;
};

struct GeneratedToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<GeneratedLogprob> alternatives;
};

enum class GenerationEnd { kEndToken, kLength };

/// What a job came to, for its ledger.
struct GenerationFigures {
  int64_t cached_tokens = 0;  ///< of the prompt
  std::string miss_reason;    ///< why the rest was not in the cache; empty: it all was
  double queue_seconds = 0, prefill_seconds = 0, decode_seconds = 0;
  std::string cached_in;  ///< the tier that had the cached tokens: memory, disk; empty: none
  std::map<std::string, int64_t> read_bytes;  ///< by memory tier
};

/// The tokens of one job as they come. Used by one thread; destroying it cancels the job.
class GenerationStream {
 public:
  enum class Next {
    kToken,
    kNothing,  ///< the time has passed
    kEnd,
  };
  virtual ~GenerationStream() = default;
  /// Waits for a token. Throws what the job failed with.
  virtual Next Wait(std::chrono::milliseconds time, GeneratedToken& token) = 0;
  /// After kEnd.
  virtual GenerationEnd end() const = 0;
  /// Ends the job if it has not ended.
  virtual GenerationFigures figures() const = 0;
};

/// A place of the generator, for /slots.
struct GenerationSlot {
  int64_t id = 0;
  bool working = false;
  int64_t tokens = 0;  ///< in its cache
};

/// What a generator's meters say, for /metrics.
struct GeneratorMeters {
  double limit_share = 0;  ///< of the speed the machine allows, lately; 0: not known
  StepBytes read_bytes;    ///< since the start
  std::optional<ExpertStoreFigures> experts;  ///< if they are read from files
};

/// What the server needs of whatever computes: jobs go in, tokens come out. Any thread.
class Generator {
 public:
  virtual ~Generator() = default;
  /// Throws ApiError of status 429 if too many are waiting.
  virtual std::unique_ptr<GenerationStream> Submit(GenerationJob job) = 0;
  virtual int64_t waiting() const = 0;
  virtual int64_t running() const = 0;
  virtual std::vector<GenerationSlot> Slots() const = 0;
  virtual GeneratorMeters Meters() const { return {}; }
};

}  // namespace toaster
