#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "chat/prompt.h"

namespace toaster {

/// What a model has seen and said: the tokens of a prompt and of the reply sampled after it, and
/// what they read as. A reply rendered in the next turn's prompt is the same text, but its text may
/// cut into other tokens than were sampled; with the sampled ones the cache stays good.
class SampledPrompt {
 public:
  /// Nothing seen yet.
  SampledPrompt() = default;
  SampledPrompt(Prompt prompt, std::vector<int32_t> prompt_tokens, std::span<const int32_t> reply,
                const Tokenizer& tokenizer);

  /// The tokens of `next`: those of this prompt and reply as they are, where `next` begins with
  /// them at a boundary between segments, and the rest encoded; all of it encoded where it does
  /// not. Throws what EncodePrompt() throws.
  PromptTokens Extend(const Prompt& next, const Tokenizer& tokenizer) const;

  /// `next` begins with this prompt and reply at a boundary between segments.
  bool BeginsOf(const Prompt& next) const;

  const std::vector<int32_t>& tokens() const { return tokens_; }
  /// Roughly what it takes in memory.
  size_t bytes() const;

 private:
  Prompt seen_;
  std::vector<int32_t> tokens_;
};

}  // namespace toaster
