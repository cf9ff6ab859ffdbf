#pragma once

// A generator for tests that says what a script says, one byte a token, instead of computing.

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/generator.h"
#include "tokenizer/tokenizer.h"

namespace toaster {

/// The prompt's text goes to the script; what it returns is the reply. A reply that ends with
/// kForever never ends by itself; kFailure in it makes the job fail there; kSlow pauses there.
class ScriptedGenerator : public Generator {
 public:
  using Script = std::function<std::string(const std::string& prompt)>;
  static constexpr char kForever = '\x01', kFailure = '\x02', kSlow = '\x03';

  ScriptedGenerator(Tokenizer tokenizer, Script script)
      : tokenizer_(std::move(tokenizer)), script_(std::move(script)) {}

  std::unique_ptr<GenerationStream> Submit(GenerationJob job) override {
    const std::lock_guard lock(mutex_);
    ++submitted;
    GenerationFigures figures;
    for (const std::vector<int32_t>& timeline : timelines_) {
      const auto [end, other] =
          std::mismatch(timeline.begin(), timeline.end(), job.prompt.begin(), job.prompt.end());
      figures.cached_tokens = std::max<int64_t>(figures.cached_tokens, end - timeline.begin());
    }
    const std::string reply = script_(tokenizer_.Decode(job.prompt));
    std::vector<int32_t> tokens = tokenizer_.Encode(reply, ControlTokens::kRecognised);
    const int64_t limit = std::min<int64_t>(job.max_tokens, static_cast<int64_t>(tokens.size()));
    const bool cut = limit < static_cast<int64_t>(tokens.size());
    tokens.resize(static_cast<size_t>(limit));
    constexpr size_t kMostTimelines = 64;
    if (timelines_.size() == kMostTimelines) timelines_.pop_front();
    std::vector<int32_t>& timeline = timelines_.emplace_back(job.prompt);
    timeline.insert(timeline.end(), tokens.begin(), tokens.end());
    return std::make_unique<Stream>(*this, std::move(tokens), cut, std::move(figures));
  }
  int64_t waiting() const override { return 0; }
  int64_t running() const override { return alive; }
  std::vector<GenerationSlot> Slots() const override { return {{0, alive > 0, 0}}; }
  GeneratorMeters Meters() const override {
    ExpertStoreFigures experts;
    experts.used = 12;
    experts.missed = 3;
    return {0.75, {13e9, 7}, experts};
  }

  std::atomic<int64_t> submitted{0}, alive{0};

 private:
  class Stream : public GenerationStream {
   public:
    Stream(ScriptedGenerator& owner, std::vector<int32_t> tokens, bool cut,
           GenerationFigures figures)
        : owner_(owner), tokens_(std::move(tokens)), cut_(cut), figures_(std::move(figures)) {
      ++owner_.alive;
    }
    ~Stream() override { --owner_.alive; }
    Next Wait(std::chrono::milliseconds time, GeneratedToken& token) override {
      if (next_ == tokens_.size()) return Next::kEnd;
      const std::string_view bytes = owner_.tokenizer_.TokenBytes(tokens_[next_]);
      if (bytes[0] == kFailure) throw Error(ErrorCode::kIo, "the disk is gone");
      if (bytes[0] == kForever) {
        std::this_thread::sleep_for(std::min(time, std::chrono::milliseconds(25)));
        return Next::kNothing;
      }
      if (bytes[0] == kSlow) {
        ++next_;
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        return Next::kNothing;
      }
      token = {tokens_[next_], -0.25F, {{tokens_[next_], -0.25F}}};
      ++next_;
      return Next::kToken;
    }
    GenerationEnd end() const override {
      return cut_ ? GenerationEnd::kLength : GenerationEnd::kEndToken;
    }
    GenerationFigures figures() const override { return figures_; }

   private:
    ScriptedGenerator& owner_;
    std::vector<int32_t> tokens_;
    const bool cut_;
    const GenerationFigures figures_;
    size_t next_ = 0;
  };

  Tokenizer tokenizer_;
  Script script_;
  std::mutex mutex_;
  std::deque<std::vector<int32_t>> timelines_;
};

}  // namespace toaster
