#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace toaster {

Session::Session(Model& model, int64_t chunk)
    : model_(model), chunk_(chunk), cache_(model.NewCache()) {
  if (chunk < 1)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("chunk is {}; it has to be at least 1", chunk));
}

void Session::Restart() {
  cache_ = model_.NewCache();
  tokens_.clear();
  logits_current_ = false;
}

int64_t Session::Sync(std::span<const int32_t> tokens, const PrefillProgress& progress) {
  const bool extends =
      tokens.size() >= tokens_.size() &&
      std::equal(tokens_.begin(), tokens_.end(), tokens.begin()) &&
      // Equal lists need no work if the logits are there; a cancelled prefill has none.
      (tokens.size() > tokens_.size() || logits_current_);
  if (!extends) Restart();
  const auto reused = static_cast<int64_t>(tokens_.size());
  const int64_t total = static_cast<int64_t>(tokens.size()) - reused;
  if (tokens.empty())
    throw Error(ErrorCode::kInvalidArgument, "the prompt has no tokens; give at least one");
  for (int64_t done = 0; done < total;) {
    const int64_t count = std::min(chunk_, total - done);
    const auto part =
        tokens.subspan(static_cast<size_t>(reused + done), static_cast<size_t>(count));
    const SequenceChunk chunk{part, cache_.get()};
    logits_current_ = false;
    try {
      model_.Forward({&chunk, 1}, streams_);
    } catch (const Error& error) {
      // A refused chunk changed nothing; any other failure may have left the cache between two
      // layers.
      if (error.code() != ErrorCode::kInvalidArgument) Restart();
      throw;
    } catch (...) {
      Restart();
      throw;
    }
    tokens_.insert(tokens_.end(), part.begin(), part.end());
    done += count;
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
