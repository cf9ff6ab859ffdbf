#include "chat/sampled_prompt.h"

#include <gmock/gmock.h>

#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

// Bytes are cut into tokens in one way only, but an id beyond the control tokens stands for no text
// at all: with such an id in it, a reply differs from the encoding of its text.
class SampledPromptTest : public testing::Test {
 protected:
  Prompt First() {
    Prompt prompt;
    prompt.AddControl(kBosToken);
    prompt.AddText("hi");
    prompt.AddControl(kEndThinkToken);
    return prompt;
  }
  Prompt Second(std::string_view reply) {
    Prompt prompt = First();
    prompt.AddText(reply);
    prompt.AddControl(kEosToken);
    prompt.AddText("b");
    return prompt;
  }
  int32_t Byte(char byte) { return 3 + static_cast<uint8_t>(byte); }

  const Tokenizer tokenizer_ = Tokenizer::Bytes(512);
  const std::vector<int32_t> first_ = EncodePrompt(First(), tokenizer_).tokens;
};

TEST_F(SampledPromptTest, KeepsTheSampledTokens) {
  const std::vector<int32_t> reply = {Byte('y'), 500, Byte('o')};
  const SampledPrompt sampled(First(), first_, reply, tokenizer_);
  std::vector<int32_t> expected = first_;
  expected.insert(expected.end(), {Byte('y'), 500, Byte('o'), 1, Byte('b')});
  EXPECT_EQ(sampled.Extend(Second("yo"), tokenizer_).tokens, expected);
}

TEST_F(SampledPromptTest, KeepsTokensOfHalfACharacter) {
  const std::vector<int32_t> reply = {Byte('y'), Byte('\xC3')};
  const SampledPrompt sampled(First(), first_, reply, tokenizer_);
  std::vector<int32_t> expected = first_;
  expected.insert(expected.end(), {Byte('y'), Byte('\xC3'), 1, Byte('b')});
  EXPECT_EQ(sampled.Extend(Second("y\xEF\xBF\xBD"), tokenizer_).tokens, expected);
}

TEST_F(SampledPromptTest, EncodesAnythingElse) {
  const std::vector<int32_t> reply = {Byte('y'), 500, Byte('o')};
  const SampledPrompt sampled(First(), first_, reply, tokenizer_);
  for (const char* other : {"yoo", "y", "", "Yo"}) {
    const Prompt next = Second(other);
    EXPECT_EQ(sampled.Extend(next, tokenizer_).tokens, EncodePrompt(next, tokenizer_).tokens)
        << other;
  }
  // A control token out of place is not what the next prompt holds.
  const std::vector<int32_t> forged = {Byte('y'), tokenizer_.RequireControlToken(kUserToken)};
  const Prompt next = Second("y");
  EXPECT_EQ(SampledPrompt(First(), first_, forged, tokenizer_).Extend(next, tokenizer_).tokens,
            EncodePrompt(next, tokenizer_).tokens);
  EXPECT_EQ(SampledPrompt().Extend(next, tokenizer_).tokens, EncodePrompt(next, tokenizer_).tokens);
}

}  // namespace
}  // namespace toaster
