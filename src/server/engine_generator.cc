#include "server/engine_generator.h"

#include <cmath>

#include "server/api_error.h"

namespace toaster {

namespace {

class Stream : public GenerationStream {
 public:
  explicit Stream(std::unique_ptr<EngineStream> stream) : stream_(std::move(stream)) {}

  Next Wait(std::chrono::milliseconds time, GeneratedToken& token) override {
    EngineToken next;
    switch (stream_->Wait(time, next)) {
      case EngineStream::Next::kNothing:
        return Next::kNothing;
      case EngineStream::Next::kEnd:
        return Next::kEnd;
      case EngineStream::Next::kToken:
        break;
    }
    token = {next.token, next.probability.value, {}};
    for (const LogProbability& other : next.alternatives) {
      token.alternatives.push_back({other.token, other.value});
    }
    return Next::kToken;
  }
  GenerationEnd end() const override {
    return stream_->end() == EngineEnd::kEndToken ? GenerationEnd::kEndToken
                                                  : GenerationEnd::kLength;
  }
  GenerationFigures figures() const override {
    EngineFigures figures = stream_->figures();
    GenerationFigures told;
    told.cached_tokens = figures.cached_tokens;
    told.miss_reason = std::move(figures.miss_reason);
    told.cached_in = std::move(figures.cached_in);
    if (figures.memory_bytes > 0) told.read_bytes["memory"] = std::llround(figures.memory_bytes);
    if (figures.disk_bytes > 0) told.read_bytes["disk"] = std::llround(figures.disk_bytes);
    told.queue_seconds = figures.queue_seconds;
    told.prefill_seconds = figures.prefill_seconds;
    told.decode_seconds = figures.decode_seconds;
    return told;
  }

 private:
  std::unique_ptr<EngineStream> stream_;
};

}  // namespace

std::unique_ptr<GenerationStream> EngineGenerator::Submit(GenerationJob job) {
  EngineRequest request;
  request.prompt = std::move(job.prompt);
  request.stable_tokens = job.stable_tokens;
  request.sampling = std::move(job.sampling);
  request.max_tokens = job.max_tokens;
  request.ignore_eos = job.ignore_eos;
  request.logprobs = job.logprobs;
  request.owner = job.user_id;
  request.client = std::move(job.user_id);
  auto stream = engine_.Submit(std::move(request));
  if (stream == nullptr) {
    ApiError error(429, "", "too many requests are waiting already; try again later");
    error.retry_after = 5;
    throw error;
  }
  return std::make_unique<Stream>(std::move(stream));
}

std::vector<GenerationSlot> EngineGenerator::Slots() const {
  std::vector<GenerationSlot> slots;
  for (const EngineStatus::Slot& slot : engine_.status().running) {
    slots.push_back({slot.id, true, slot.computed});
  }
  // Those that are free; ids of requests begin at 0, so theirs are below.
  for (int64_t i = static_cast<int64_t>(slots.size()); i < places_; ++i) {
    slots.push_back({-1 - i, false, 0});
  }
  return slots;
}

GeneratorMeters EngineGenerator::Meters() const {
  const EngineStatus status = engine_.status();
  return {status.limit_share, status.read_bytes, status.experts};
}

}  // namespace toaster
