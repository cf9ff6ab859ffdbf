#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace toaster {

/// A stretch of a prompt: one control token, by its text, or plain text, in which nothing is ever
/// recognised as a control token.
struct PromptSegment {
  bool control = false;
  std::string text;

  bool operator==(const PromptSegment&) const = default;
};

/// A prompt under construction, and when done. Neighbouring texts are one segment: the tokenizer
/// sees them as one text.
class Prompt {
 public:
  /// Appends a control token, given by its text.
  void AddControl(std::string_view token);
  /// Appends text as it is.
  void AddText(std::string_view text);
  /// Appends text the program itself or the checkpoint's maker wrote: ｜DSML｜, <think> and
  /// </think> in it become control tokens, as they do in the released encoder.
  void AddTrusted(std::string_view text);
  void Add(const std::vector<PromptSegment>& segments);

  const std::vector<PromptSegment>& segments() const { return segments_; }
  /// The prompt as one text; what a control token is cannot be seen in it.
  std::string Text() const;

  /// Marks the end of what the next turn of the same conversation is sure to begin with. Only the
  /// first mark counts, so the first doubtful place decides. A mark at the end of the prompt's last
  /// text, or inside a text, stands at that text's beginning: how a text's end is cut into tokens
  /// depends on what follows.
  void MarkStableEnd();
  /// The number of segments before that mark; all of them without one.
  size_t stable_segments() const;

 private:
  std::vector<PromptSegment> segments_;
  bool marked_ = false;
  size_t marked_segments_ = 0;
  size_t marked_text_ = 0;  ///< bytes of the last of them, if that is text
};

/// A prompt as the model gets it.
struct PromptTokens {
  std::vector<int32_t> tokens;
  /// How many of them, from the beginning, the next turn of the same conversation is sure to begin
  /// with: what a prefix cache can count on.
  size_t stable = 0;
};

/// Throws Error(kUnsupported) naming a control token that `tokenizer` does not have.
PromptTokens EncodePrompt(const Prompt& prompt, const Tokenizer& tokenizer);

}  // namespace toaster
