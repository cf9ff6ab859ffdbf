#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "tensor/elementary.h"

namespace toaster {

namespace {

void RequireRange(const char* name, float value, float low, float high) {
  if (!(value >= low && value <= high)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is {}; it has to be between {} and {}", name, value, low, high));
  }
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options), vocab_size_(vocab_size) {
  RequireRange("temperature", options.temperature, 0, 100);
  RequireRange("top_p", options.top_p, 0, 1);
  RequireRange("min_p", options.min_p, 0, 1);
  RequireRange("presence_penalty", options.presence_penalty, -100, 100);
  RequireRange("frequency_penalty", options.frequency_penalty, -100, 100);
  RequireRange("repetition_penalty", options.repetition_penalty, 0.01f, 100);
  if (options.top_k < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("top_k is {}; it has to be 0 (off) or more", options.top_k));
  }
  for (const auto& [token, bias] : options.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("logit_bias names token {}; this model knows tokens 0 to {}", token,
                              vocab_size - 1));
    }
    RequireRange("a logit_bias", bias, -1000, 1000);
  }
}

void Sampler::AcceptPrompt(std::span<const int32_t> tokens) {
  if (options_.repetition_penalty == 1) return;
  for (const int32_t token : tokens) seen_[token] = true;
}

void Sampler::Accept(int32_t token) {
  ++generated_[token];
  seen_[token] = true;
}

void Sampler::Adjust(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = {logits[i], static_cast<int32_t>(i)};
  for (const auto& [token, bias] : options_.logit_bias)
    candidates_[static_cast<size_t>(token)].logit += bias;
  if (options_.repetition_penalty != 1) {
    for (const auto& [token, unused] : seen_) {
      float& logit = candidates_[static_cast<size_t>(token)].logit;
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
  }
  for (const auto& [token, count] : generated_) {
    candidates_[static_cast<size_t>(token)].logit -=
        options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  }
}

float Sampler::Truncate() {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  const float maximum =
      std::max_element(candidates_.begin(), candidates_.end(), [&](const auto& a, const auto& b) {
        return likelier(b, a);
      })->logit;
  for (Candidate& candidate : candidates_) {
    candidate.logit = Exp((candidate.logit - maximum) / options_.temperature);
  }
  // From here on `logit` is the likelihood relative to the most likely token.
  std::erase_if(candidates_,
                [&](const Candidate& c) { return c.logit == 0 || c.logit < options_.min_p; });
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(candidates_.size())) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(),
                     likelier);
    candidates_.resize(static_cast<size_t>(options_.top_k));
  }
  std::sort(candidates_.begin(), candidates_.end(), likelier);
  float total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.logit;
  if (options_.top_p < 1) {
    float kept = 0;
    size_t count = 0;
    while (count < candidates_.size() && (count == 0 || kept < options_.top_p * total)) {
      kept += candidates_[count++].logit;
    }
    candidates_.resize(count);
    total = kept;
  }
  return total;
}

int32_t Sampler::Sample(std::span<const float> logits, int64_t position) {
  bool finite = false;
  for (const float logit : logits) {
    if (std::isnan(logit)) {
      throw Error(ErrorCode::kCorruptFile,
                  "the model computed a logit that is not a number; its files may be damaged, "
                  "`toaster verify` tells");
    }
    finite = finite || logit > -INFINITY;
  }
  if (!finite) {
    throw Error(ErrorCode::kCorruptFile,
                "every logit is -infinity; `toaster verify` tells whether the files are damaged");
  }
  Adjust(logits);
  if (options_.temperature == 0) {
    return std::max_element(
               candidates_.begin(), candidates_.end(),
               [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; })
        ->token;
  }
  const float total = Truncate();
  const auto bits = Philox(options_.seed, static_cast<uint64_t>(position), 0);
  const double target = UniformDouble(bits[0], bits[1]) * static_cast<double>(total);
  float sum = 0;
  for (const Candidate& candidate : candidates_) {
    sum += candidate.logit;
    if (static_cast<double>(sum) > target) return candidate.token;
  }
  return candidates_.back().token;
}

int32_t ArgMax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace toaster
