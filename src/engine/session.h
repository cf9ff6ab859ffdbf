#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"

namespace toaster {

/// Told after every chunk of a prefill how many of the missing tokens are done; false asks to stop.
using PrefillProgress = std::function<bool(int64_t done, int64_t total)>;

/// One timeline of tokens with its cache. Hides whether a token list extends what is cached or
/// needs a new start. Used by one thread at a time; the model is borrowed.
class Session {
 public:
  /// `chunk`: tokens per forward pass of a prefill, at least 1.
  Session(Model& model, int64_t chunk);

  /// Makes the timeline equal to `tokens` (at least one) and computes the logits after the last
  /// one. What the timeline and `tokens` share is reused if the timeline is a prefix of `tokens`;
  /// otherwise it is computed anew. Returns the number of tokens reused. Throws Error(kCancelled)
  /// when `progress` says stop; what was computed until then stays and is reused by the next call.
  int64_t Sync(std::span<const int32_t> tokens, const PrefillProgress& progress = nullptr);

  const std::vector<int32_t>& tokens() const { return tokens_; }
  /// [vocabulary], after the last token of the timeline.
  std::span<const float> logits() const { return logits_.values(); }
  const SequenceCache& cache() const { return *cache_; }

 private:
  void Restart();

  Model& model_;
  int64_t chunk_;
  std::unique_ptr<SequenceCache> cache_;
  std::vector<int32_t> tokens_;
  Tensor streams_, last_, logits_;
  bool logits_current_ = false;
};

}  // namespace toaster
