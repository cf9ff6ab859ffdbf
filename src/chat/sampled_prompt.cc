#include "chat/sampled_prompt.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace toaster {

SampledPrompt::SampledPrompt(Prompt prompt, std::vector<int32_t> prompt_tokens,
                             std::span<const int32_t> reply, const Tokenizer& tokenizer)
    : seen_(std::move(prompt)), tokens_(std::move(prompt_tokens)) {
  std::string text;
  // The reply parser makes text well formed too, so the two compare equal.
  const auto end_text = [&] {
    seen_.AddText(ReplaceIllFormed(text));
    text.clear();
  };
  for (const int32_t token : reply) {
    if (tokenizer.IsControlToken(token)) {
      end_text();
      seen_.AddControl(tokenizer.TokenBytes(token));
    } else {
      text += tokenizer.TokenBytes(token);
    }
  }
  end_text();
  tokens_.insert(tokens_.end(), reply.begin(), reply.end());
}

bool SampledPrompt::BeginsOf(const Prompt& next) const {
  const std::vector<PromptSegment>& seen = seen_.segments();
  const std::vector<PromptSegment>& segments = next.segments();
  return !tokens_.empty() && seen.size() <= segments.size() &&
         std::equal(seen.begin(), seen.end(), segments.begin());
}

size_t SampledPrompt::bytes() const {
  size_t bytes = sizeof *this + tokens_.size() * sizeof tokens_[0];
  for (const PromptSegment& segment : seen_.segments())
    bytes += sizeof segment + segment.text.size();
  return bytes;
}

PromptTokens SampledPrompt::Extend(const Prompt& next, const Tokenizer& tokenizer) const {
  PromptTokens encoded = EncodePrompt(next, tokenizer);
  if (!BeginsOf(next)) return encoded;
  const std::vector<PromptSegment>& segments = next.segments();
  Prompt rest;
  rest.Add({segments.begin() + static_cast<ptrdiff_t>(seen_.segments().size()), segments.end()});
  const std::vector<int32_t> added = EncodePrompt(rest, tokenizer).tokens;
  // What comes after the stable place is cut alike, if it lies in the rest; if not, the place is
  // told too early rather than too late.
  const size_t unstable = encoded.tokens.size() - encoded.stable;
  encoded.tokens = tokens_;
  encoded.tokens.insert(encoded.tokens.end(), added.begin(), added.end());
  encoded.stable = unstable <= added.size() ? encoded.tokens.size() - unstable : 0;
  return encoded;
}

}  // namespace toaster
