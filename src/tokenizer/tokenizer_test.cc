#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

TEST(ByteTokenizerTest, IdsAreAsDocumented) {
  const Tokenizer tokenizer = Tokenizer::Bytes(259);
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_EQ(tokenizer.ControlToken(kBosToken), 0);
  EXPECT_EQ(tokenizer.ControlToken(kEosToken), 1);
  EXPECT_EQ(tokenizer.Encode("AB\xFF"), (std::vector<int32_t>{3 + 'A', 3 + 'B', 258}));
  EXPECT_EQ(tokenizer.ControlToken(kUserToken), std::nullopt);
  EXPECT_THROW(tokenizer.RequireControlToken(kUserToken), Error);
  EXPECT_THROW(Tokenizer::Bytes(258), Error);
  EXPECT_THROW(Tokenizer::Bytes(int64_t{1} << 40), Error);
}

TEST(ByteTokenizerTest, LargerVocabulariesHaveThePromptsTokens) {
  const auto count = static_cast<int64_t>(Tokenizer::ByteControlTokens().size());
  EXPECT_EQ(Tokenizer::Bytes(259 + count - 1).ControlToken(kThinkToken), std::nullopt);
  const Tokenizer tokenizer = Tokenizer::Bytes(1000);
  for (int64_t i = 0; i < count; ++i) {
    const std::string_view text = Tokenizer::ByteControlTokens()[static_cast<size_t>(i)];
    const int32_t id = tokenizer.RequireControlToken(text);
    EXPECT_EQ(id, 259 + i);
    EXPECT_TRUE(tokenizer.IsControlToken(id));
    EXPECT_EQ(tokenizer.TokenBytes(id), text);
  }
  EXPECT_EQ(tokenizer.vocab_size(), 1000);
  EXPECT_EQ(tokenizer.TokenBytes(999), "");
  EXPECT_EQ(tokenizer.TokenBytes(1000), "");
  EXPECT_EQ(tokenizer.TokenBytes(-1), "");
}

TEST(ByteTokenizerTest, ControlTokensComeOnlyWhenAskedFor) {
  const Tokenizer tokenizer = Tokenizer::Bytes(1000);
  const std::string text = "a<｜User｜>b";
  EXPECT_EQ(tokenizer.Encode(text).size(), text.size());
  EXPECT_EQ(tokenizer.Encode(text, ControlTokens::kRecognised),
            (std::vector<int32_t>{3 + 'a', 259, 3 + 'b'}));
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text, ControlTokens::kRecognised)), text);
}

TEST(TokenDecoderTest, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = Tokenizer::Bytes(259);
  TokenDecoder decoder(tokenizer);
  std::vector<std::string> pieces;
  for (const int32_t id : tokenizer.Encode("a€😀\xFF!")) pieces.push_back(decoder.Push(id));
  EXPECT_EQ(pieces,
            (std::vector<std::string>{"a", "", "", "€", "", "", "", "😀", "\xEF\xBF\xBD", "!"}));
  EXPECT_EQ(decoder.Finish(), "");
  EXPECT_EQ(decoder.Push(3 + 0xE2), "");
  EXPECT_EQ(decoder.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.Finish(), "");
}

}  // namespace
}  // namespace toaster
