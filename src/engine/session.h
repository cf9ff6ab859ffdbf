#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/prefix_store.h"
#include "model/model.h"

namespace toaster {

/// Told during a prefill how many of the missing tokens are done; false asks to stop. Comes after
/// every chunk and, in a large one, after every layer; then `done` counts layers of tokens.
using PrefillProgress = std::function<bool(int64_t done, int64_t total)>;

/// One timeline of tokens with its cache. Hides whether a token list extends what is cached, goes
/// back to an earlier place, or needs a new start. Used by one thread at a time; the model is
/// borrowed.
class Session {
 public:
  /// `chunk`: tokens per forward pass of a prefill, at least 1.
  /// `store`, borrowed, may be null: prompts go on from what it has, and are stored in it.
  Session(Model& model, int64_t chunk, PrefixStore* store = nullptr);

  /// Makes the timeline equal to `tokens` (at least one) and computes the logits after the last
  /// one. What both share is reused: all of it if the timeline is a prefix of `tokens`, otherwise
  /// up to the last place kept within it: the ends of the latest prompts are. Returns the
  /// number of tokens reused. Throws Error(kCancelled) when `progress` says stop; the chunks that
  /// were computed until then stay and are reused by the next call.
  ///
  /// The first `stable` of `tokens`, if given, are what a later call is sure to begin with: that
  /// place is kept instead of the end.
  int64_t Sync(std::span<const int32_t> tokens, const PrefillProgress& progress = nullptr,
               std::optional<int64_t> stable = std::nullopt);

  const std::vector<int32_t>& tokens() const { return tokens_; }
  /// [vocabulary], after the last token of the timeline.
  std::span<const float> logits() const { return logits_.values(); }
  const SequenceCache& cache() const { return *cache_; }
  /// Stores the timeline, if there is a store and it is worth it.
  void Store();
  /// Of the timeline: tokens that came from the store, and the bytes that were read for them.
  int64_t stored_tokens() const { return stored_tokens_; }
  int64_t stored_bytes_read() const { return stored_bytes_ ? stored_bytes_->load() : 0; }

 private:
  /// Shortens the timeline to the last kept place at or before `length`, or to nothing.
  void GoBack(int64_t length);
  void Keep();
  int64_t Extend(std::span<const int32_t> tokens, const PrefillProgress& progress,
                 std::optional<int64_t> stable);
  void AddChunk(std::span<const int32_t> chunk, int64_t done, int64_t total,
                const PrefillProgress& progress);

  Model& model_;
  int64_t chunk_;
  std::unique_ptr<SequenceCache> cache_;
  std::vector<int32_t> tokens_;
  std::deque<CacheSnapshot> kept_;  ///< by rising length
  Tensor streams_, last_, logits_;
  bool logits_current_ = false;
  PrefixStore* store_;
  int64_t stored_tokens_ = 0;
  std::shared_ptr<std::atomic<int64_t>> stored_bytes_;
};

}  // namespace toaster
