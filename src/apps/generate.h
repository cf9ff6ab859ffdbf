#pragma once

// The loop that every way of running a model shares: read a prompt, sample a reply.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler.h"
#include "engine/session.h"
#include "model/config.h"

namespace toaster {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = -1;  ///< longest reply; negative: as long as the model's context allows
  bool ignore_eos = false;
};

/// What Generate() asks and tells; every one may be empty.
struct GenerateHooks {
  /// How far the prompt is, after every chunk.
  std::function<void(int64_t done, int64_t total)> progress;
  /// The prompt is read.
  std::function<void()> prompt_done;
  /// The logits after the prompt and after every token of the reply but the last.
  std::function<void(std::span<const float>)> logits;
  /// A token of the reply; false: it is the last one.
  std::function<bool(int32_t)> token;
  /// Asked before every step; true: stop.
  std::function<bool()> interrupted;
};

enum class GenerateEnd {
  kEndOfText,          ///< the model ended it
  kStopped,            ///< the token hook did
  kLength,             ///< max_tokens
  kContextFull,        ///< the model's longest sequence
  kInterrupted,        ///< inside the reply
  kInterruptedPrompt,  ///< inside the prompt; there is no reply
};
/// "end of text", "stop string", ...
std::string_view GenerateEndName(GenerateEnd end);

struct Generated {
  std::vector<int32_t> reply;  ///< without the end token
  GenerateEnd end = GenerateEnd::kLength;
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;   ///< of the prompt, from the session
  int64_t read_tokens = 0;     ///< of the prompt, computed
  int64_t sampled_tokens = 0;  ///< the reply with its end token
  double prefill_seconds = 0, decode_seconds = 0;

  double PrefillRate() const { return static_cast<double>(read_tokens) / prefill_seconds; }
  double DecodeRate() const { return static_cast<double>(sampled_tokens) / decode_seconds; }
};

/// Makes `session` equal to `prompt` (reusing what it can) and samples a reply. The first `stable`
/// tokens are what the next prompt is sure to begin with; without it, all are. Throws
/// Error(kInvalidArgument) for a prompt longer than the model's context, and what Session and
/// Sampler throw.
Generated Generate(Session& session, const Config& config, std::vector<int32_t> prompt,
                   const GenerateOptions& options, const GenerateHooks& hooks,
                   std::optional<int64_t> stable = std::nullopt);

class Clock {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// One line on standard error that is rewritten while a prompt is read. Shows nothing in the first
/// half second, and nothing at all where standard error is no terminal.
class ProgressLine {
 public:
  explicit ProgressLine(bool on);
  void Show(int64_t done, int64_t total);
  void Clear();

 private:
  bool on_, shown_ = false;
  Clock clock_;
};

/// What this process has resident: the peak, and now the mapped files (weights that were touched,
/// and the program), the cache, and everything else it allocated.
std::string MemoryText(const SequenceCache& cache);

}  // namespace toaster
