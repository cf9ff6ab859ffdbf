#include "engine/engine_stream.h"

namespace toaster {

EngineStream::~EngineStream() { shared_->cancelled = true; }

EngineStream::Next EngineStream::Wait(std::chrono::milliseconds time, EngineToken& token) {
  std::unique_lock lock(shared_->mutex);
  shared_->wake.wait_for(lock, time, [&] { return !shared_->tokens.empty() || shared_->ended; });
  if (!shared_->tokens.empty()) {
    token = std::move(shared_->tokens.front());
    shared_->tokens.pop_front();
    return Next::kToken;
  }
  if (!shared_->ended) return Next::kNothing;
  if (shared_->failure) std::rethrow_exception(shared_->failure);
  return Next::kEnd;
}

EngineEnd EngineStream::end() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->end;
}

EngineFigures EngineStream::figures() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->figures;
}

}  // namespace toaster
