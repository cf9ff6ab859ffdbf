#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace toaster {

namespace {

// Ends of prompts to which a session can go back. A client that leaves out the reasoning of the
// last turn, or asks for another answer, goes back one or two.
constexpr size_t kKeptPlaces = 4;

// A chunk this large takes long enough to be watched, and stopped, between its layers.
constexpr int64_t kWatchedChunk = 64;

}  // namespace

Session::Session(Model& model, int64_t chunk, PrefixStore* store)
    : model_(model), chunk_(chunk), cache_(model.NewCache()), store_(store) {
  if (chunk < 1)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("chunk is {}; it has to be at least 1", chunk));
}

void Session::GoBack(int64_t length) {
  while (!kept_.empty() && kept_.back().length > length) kept_.pop_back();
  if (kept_.empty()) {
    cache_ = model_.NewCache();
    tokens_.clear();
  } else {
    cache_->Restore(kept_.back());
    tokens_.resize(static_cast<size_t>(kept_.back().length));
  }
  stored_tokens_ = std::min(stored_tokens_, static_cast<int64_t>(tokens_.size()));
  logits_current_ = false;
}

void Session::Keep() {
  if (!kept_.empty() && kept_.back().length == cache_->length()) return;
  if (kept_.size() == kKeptPlaces) kept_.pop_front();
  kept_.push_back(cache_->TakeSnapshot());
}

void Session::AddChunk(std::span<const int32_t> chunk, int64_t done, int64_t total,
                       const PrefillProgress& progress) {
  const auto count = static_cast<int64_t>(chunk.size());
  const bool watched = progress && count >= kWatchedChunk;
  LayerProgress after_layer;
  CacheSnapshot before;
  if (watched) {
    before = cache_->TakeSnapshot();
    after_layer = [&](int64_t layers_done, int64_t layers) {
      return progress(done + count * layers_done / layers, total);
    };
  }
  logits_current_ = false;
  const SequenceChunk sequence{chunk, cache_.get()};
  try {
    model_.Forward({&sequence, 1}, streams_, nullptr, after_layer);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInvalidArgument) throw;  // nothing changed
    if (!watched) {
      GoBack(cache_->length());
      throw;
    }
    cache_->Restore(before);
    if (error.code() != ErrorCode::kCancelled) throw;
    throw Error(ErrorCode::kCancelled, fmt::format("stopped after {} of {} tokens", done, total));
  } catch (...) {
    GoBack(cache_->length());
    throw;
  }
  tokens_.insert(tokens_.end(), chunk.begin(), chunk.end());
}

void Session::Store() {
  if (store_ != nullptr && !tokens_.empty()) store_->Put("", tokens_, *cache_);
}

int64_t Session::Sync(std::span<const int32_t> tokens, const PrefillProgress& progress,
                      std::optional<int64_t> stable) {
  for (;;) {
    try {
      return Extend(tokens, progress, stable);
    } catch (const PrefixDamage&) {  // the piece is removed, so this happens once for each
      kept_.clear();
      GoBack(0);
    }
  }
}

int64_t Session::Extend(std::span<const int32_t> tokens, const PrefillProgress& progress,
                        std::optional<int64_t> stable) {
  if (tokens.empty())
    throw Error(ErrorCode::kInvalidArgument, "the prompt has no tokens; give at least one");
  const auto size = static_cast<int64_t>(tokens.size());
  const auto shared = static_cast<int64_t>(
      std::mismatch(tokens_.begin(), tokens_.end(), tokens.begin(), tokens.end()).first -
      tokens_.begin());
  // An equal list needs no work if the logits are there; a cancelled prefill has none.
  if (shared < static_cast<int64_t>(tokens_.size()) || (shared == size && !logits_current_)) {
    GoBack(std::min(shared, size - 1));
  }
  if (store_ != nullptr && size - static_cast<int64_t>(tokens_.size()) > 1) {
    PrefixStore::Hit hit = store_->Find("", tokens, static_cast<int64_t>(tokens_.size()));
    if (hit.cache != nullptr) {
      kept_.clear();
      cache_ = std::move(hit.cache);
      tokens_.assign(tokens.begin(), tokens.begin() + hit.tokens);
      stored_tokens_ = hit.tokens;
      stored_bytes_ = std::move(hit.bytes_read);
      Keep();
    }
  }
  const auto reused = static_cast<int64_t>(tokens_.size());
  const int64_t total = size - reused;
  const int64_t kept = stable.value_or(size);
  for (int64_t done = 0; done < total;) {
    int64_t count = std::min(chunk_, total - done);
    if (kept > reused + done) count = std::min(count, kept - reused - done);
    if (store_ != nullptr) {
      count = std::min(count, store_->spacing() - (reused + done) % store_->spacing());
    }
    AddChunk(tokens.subspan(static_cast<size_t>(reused + done), static_cast<size_t>(count)), done,
             total, progress);
    done += count;
    // A prompt's; replies come one token at a time.
    const bool end = reused + done == kept && total > 1;
    if (end) Keep();
    if (end || (store_ != nullptr && (reused + done) % store_->spacing() == 0)) Store();
    if (done == total) {
      const int64_t width = streams_.width();
      last_.Reshape({1, streams_.extent(1), streams_.extent(2)});
      std::copy_n(streams_.Row(count - 1), width, last_.data());
      model_.Logits(last_, logits_);
      logits_current_ = true;
    }
    if (progress && !progress(done, total) && done < total) {
      throw Error(ErrorCode::kCancelled, fmt::format("stopped after {} of {} tokens", done, total));
    }
  }
  return reused;
}

}  // namespace toaster
