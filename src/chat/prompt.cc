#include "chat/prompt.h"

#include <array>

#include "tokenizer/special_tokens.h"

namespace toaster {

void Prompt::AddControl(std::string_view token) { segments_.push_back({true, std::string(token)}); }

void Prompt::AddText(std::string_view text) {
  if (text.empty()) return;
  if (segments_.empty() || segments_.back().control) segments_.push_back({false, ""});
  segments_.back().text += text;
}

void Prompt::AddTrusted(std::string_view text) {
  while (!text.empty()) {
    size_t first = text.npos;
    std::string_view found;
    for (const std::string_view token : {kDsmlToken, kThinkToken, kEndThinkToken}) {
      const size_t place = text.find(token);
      if (place < first) {
        first = place;
        found = token;
      }
    }
    AddText(text.substr(0, first));
    if (found.empty()) return;
    AddControl(found);
    text.remove_prefix(first + found.size());
  }
}

void Prompt::Add(const std::vector<PromptSegment>& segments) {
  for (const PromptSegment& segment : segments) {
    if (segment.control) {
      AddControl(segment.text);
    } else {
      AddText(segment.text);
    }
  }
}

std::string Prompt::Text() const {
  std::string text;
  for (const PromptSegment& segment : segments_) text += segment.text;
  return text;
}

void Prompt::MarkStableEnd() {
  if (marked_) return;
  marked_ = true;
  marked_segments_ = segments_.size();
  marked_text_ = segments_.empty() ? 0 : segments_.back().text.size();
}

size_t Prompt::stable_segments() const {
  if (!marked_) return segments_.size();
  if (marked_segments_ == 0) return 0;
  const PromptSegment& last = segments_[marked_segments_ - 1];
  const bool text_goes_on =
      !last.control && (last.text.size() > marked_text_ || marked_segments_ == segments_.size());
  return marked_segments_ - (text_goes_on ? 1 : 0);
}

PromptTokens EncodePrompt(const Prompt& prompt, const Tokenizer& tokenizer) {
  PromptTokens result;
  const std::vector<PromptSegment>& segments = prompt.segments();
  for (size_t i = 0; i < segments.size(); ++i) {
    if (i == prompt.stable_segments()) result.stable = result.tokens.size();
    if (segments[i].control) {
      result.tokens.push_back(tokenizer.RequireControlToken(segments[i].text));
    } else {
      tokenizer.Encode(segments[i].text, ControlTokens::kAsText, result.tokens);
    }
  }
  if (prompt.stable_segments() == segments.size()) result.stable = result.tokens.size();
  return result;
}

}  // namespace toaster
