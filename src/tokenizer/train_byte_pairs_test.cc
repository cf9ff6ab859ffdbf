#include "tokenizer/train_byte_pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/split_words.h"
#include "tokenizer/tokenizer.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;

std::string SampleText() {
  std::ifstream file(TOASTER_SOURCE_DIR "/tests/data/tokenizer/sample.txt", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

WordCounts CountsOf(std::string_view text) {
  WordCounts words;
  words.Add(text);
  return words;
}

/// The merges as the file spells them, with the bytes themselves.
std::vector<std::string> Spelled(const TokenizerFile& file) {
  std::vector<std::string> spelled;
  for (const Merge& merge : file.merges) {
    spelled.push_back(file.tokens[static_cast<size_t>(merge.left)] + "+" +
                      file.tokens[static_cast<size_t>(merge.right)]);
  }
  return spelled;
}

/// The definition: all pairs of all words are counted anew for every merge.
std::vector<std::string> ByDefinition(const std::string& text, int64_t merges) {
  std::vector<uint32_t> ends;
  WordSplitter(DeepSeekExpressions(), "test").Split(text, ends);
  std::vector<std::vector<int32_t>> words;
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    std::vector<int32_t> word;
    for (; begin < end; ++begin) word.push_back(3 + static_cast<uint8_t>(text[begin]));
    words.push_back(word);
  }
  std::map<int32_t, std::string> tokens;
  for (int32_t byte = 0; byte < 256; ++byte)
    tokens[3 + byte] = std::string(1, static_cast<char>(byte));
  std::vector<std::string> spelled;
  while (static_cast<int64_t>(spelled.size()) < merges) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    std::pair<int32_t, int32_t> best;
    int64_t most = 1;
    for (const auto& [pair, count] : counts) {
      bool known = false;
      for (const auto& [id, bytes] : tokens)
        known |= bytes == tokens[pair.first] + tokens[pair.second];
      if (count <= most || known) continue;
      most = count;
      best = pair;
    }
    if (most == 1) break;
    const auto id = static_cast<int32_t>(3 + tokens.size());
    tokens[id] = tokens[best.first] + tokens[best.second];
    spelled.push_back(tokens[best.first] + "+" + tokens[best.second]);
    for (auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (std::pair(word[i], word[i + 1]) != best) continue;
        word[i] = id;
        word.erase(word.begin() + static_cast<ptrdiff_t>(i) + 1);
      }
    }
  }
  return spelled;
}

TEST(TrainBytePairsTest, AKnownTextGivesKnownMerges) {
  // aa occurs four times; then aa+a and a+b twice each, of which a+b has the lower left id.
  const TrainedBytePairs trained = TrainBytePairs(CountsOf("aaabdaaabac"), {.vocab_size = 400});
  EXPECT_EQ(Spelled(trained.file), (std::vector<std::string>{"a+a", "a+b", "aa+ab"}));
  EXPECT_EQ(trained.tokens, 5);  // aaab d aaab a c
  EXPECT_EQ(trained.file.tokens.size(), 3u + 256u + 3u + Tokenizer::ByteControlTokens().size());
}

TEST(TrainBytePairsTest, FollowsTheDefinition) {
  std::mt19937 random(4);
  for (int round = 0; round < 60; ++round) {
    std::string text;
    for (size_t i = 0; i < 150; ++i) text += "aabbc -"[random() % 7];
    const TrainedBytePairs trained =
        TrainBytePairs(CountsOf(text), {.vocab_size = MinTrainedVocabulary() + 40});
    ASSERT_EQ(Spelled(trained.file), ByDefinition(text, 40)) << text;
  }
}

TEST(TrainBytePairsTest, TheEncoderArrivesWhereTrainingDid) {
  const std::string text = SampleText();
  const TrainedBytePairs trained = TrainBytePairs(CountsOf(text), {.vocab_size = 1500});
  EXPECT_EQ(trained.file.tokens.size(), 1500u);
  const Tokenizer tokenizer = Tokenizer::FromJson(TokenizerFileText(trained.file), "test");
  const std::vector<int32_t> tokens = tokenizer.Encode(text);
  EXPECT_EQ(static_cast<int64_t>(tokens.size()), trained.tokens);
  EXPECT_LT(tokens.size(), text.size() / 2);
  EXPECT_EQ(tokenizer.Decode(tokens), text);
}

TEST(TrainBytePairsTest, TheFileIsReadBack) {
  const TokenizerFile file = TrainBytePairs(CountsOf(SampleText()), {.vocab_size = 700}).file;
  const std::string text = TokenizerFileText(file);
  const TokenizerFile read = ParseTokenizerFile(text, "test");
  EXPECT_EQ(read.tokens, file.tokens);
  EXPECT_EQ(read.byte_tokens, file.byte_tokens);
  EXPECT_EQ(read.expressions, file.expressions);
  EXPECT_EQ(Spelled(read), Spelled(file));
  ASSERT_EQ(read.added_tokens.size(), file.added_tokens.size());
  for (size_t i = 0; i < read.added_tokens.size(); ++i) {
    EXPECT_EQ(read.added_tokens[i].id, file.added_tokens[i].id);
    EXPECT_EQ(read.added_tokens[i].text, file.added_tokens[i].text);
    EXPECT_EQ(read.added_tokens[i].special, file.added_tokens[i].special);
  }
  EXPECT_EQ(TokenizerFileText(read), text);
  const Tokenizer tokenizer = Tokenizer::FromJson(text, "test");
  EXPECT_EQ(tokenizer.ControlToken(kBosToken), 0);
  EXPECT_EQ(tokenizer.ControlToken(kEosToken), 1);
  EXPECT_EQ(tokenizer.vocab_size(), 700);
  for (const std::string_view control : Tokenizer::ByteControlTokens())
    EXPECT_TRUE(tokenizer.ControlToken(control)) << control;
}

TEST(TrainBytePairsTest, AForeignFileIsReadBackToo) {
  std::ifstream stream(TOASTER_SOURCE_DIR "/tests/data/tokenizer/tokenizer.json");
  const std::string foreign(std::istreambuf_iterator<char>(stream), {});
  const std::string text = TokenizerFileText(ParseTokenizerFile(foreign, "test"));
  const std::string sample = SampleText();
  for (const ControlTokens control : {ControlTokens::kAsText, ControlTokens::kRecognised}) {
    EXPECT_EQ(Tokenizer::FromJson(text, "test").Encode(sample, control),
              Tokenizer::FromJson(foreign, "test").Encode(sample, control));
  }
}

TEST(TrainBytePairsTest, AnyBytesComeBack) {
  const TokenizerFile file = TrainBytePairs(CountsOf(SampleText()), {.vocab_size = 600}).file;
  const Tokenizer tokenizer = Tokenizer::FromJson(TokenizerFileText(file), "test");
  std::mt19937 random(12);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (size_t i = random() % 200; i > 0; --i)
      text += static_cast<char>(random() % 3 ? random() : 'a' + random() % 26);
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), text);
  }
}

TEST(TrainBytePairsTest, OrderAndPartsDoNotMatter) {
  const std::string text = SampleText();
  const std::string once =
      TokenizerFileText(TrainBytePairs(CountsOf(text + text), {.vocab_size = 500}).file);
  WordCounts parts;
  const size_t cut = WordCounts::WholeLines(std::string_view(text).substr(0, text.size() / 2));
  ASSERT_GT(cut, 0u);
  for (const std::string& part : {text.substr(cut), text, text.substr(0, cut)})
    parts.Add(CountsOf(part));
  EXPECT_EQ(TokenizerFileText(TrainBytePairs(parts, {.vocab_size = 500}).file), once);
}

TEST(TrainBytePairsTest, WholeLinesCutNoWord) {
  const std::string text = SampleText().substr(0, 12000);
  const WordCounts whole = CountsOf(text);
  std::set<size_t> cuts;
  for (size_t length = 0; length <= text.size(); length += 7)
    cuts.insert(WordCounts::WholeLines(std::string_view(text).substr(0, length)));
  EXPECT_GT(cuts.size(), 20u);
  for (const size_t cut : cuts) {
    WordCounts parts = CountsOf(std::string_view(text).substr(cut));
    parts.Add(CountsOf(std::string_view(text).substr(0, cut)));
    EXPECT_EQ(parts.counts(), whole.counts()) << cut;
    EXPECT_EQ(parts.total(), whole.total());
    EXPECT_EQ(parts.bytes(), whole.bytes());
  }
}

TEST(TrainBytePairsTest, DigitsStaySingleWhenAsked) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "In 1999 we paid 120 for 12 of them. ";
  const auto longest = [&](bool single) {
    const TokenizerFile file =
        TrainBytePairs(CountsOf(text), {.vocab_size = 330, .single_digits = single}).file;
    size_t length = 0;
    for (const Merge& merge : file.merges) {
      const std::string& token = file.tokens[static_cast<size_t>(merge.result)];
      if (token.find_first_of("0123456789") != token.npos) length = std::max(length, token.size());
    }
    return length;
  };
  EXPECT_EQ(longest(false), 3u);
  EXPECT_EQ(longest(true), 0u);
}

TEST(TrainBytePairsTest, AnEndlessWordIsNoTrouble) {
  const TrainedBytePairs trained =
      TrainBytePairs(CountsOf(std::string(1 << 20, 'x')), {.vocab_size = 400});
  // x, then doubled until the longest token.
  ASSERT_FALSE(trained.file.merges.empty());
  for (const Merge& merge : trained.file.merges) {
    EXPECT_LE(trained.file.tokens[static_cast<size_t>(merge.result)].size(), kLongestTrainedToken);
  }
  EXPECT_EQ(trained.tokens, (1 << 20) / static_cast<int64_t>(kLongestTrainedToken));
}

TEST(TrainBytePairsTest, BadSettingsAndStopping) {
  const WordCounts words = CountsOf("some words and some more words");
  const auto message = [&](const BytePairTraining& settings) -> std::string {
    try {
      TrainBytePairs(words, settings);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
  };
  EXPECT_THAT(message({.vocab_size = 273}), HasSubstr("from 274 (bytes and control tokens)"));
  EXPECT_EQ(message({.vocab_size = 274}), "");
  EXPECT_THAT(message({.vocab_size = int64_t{1} << 40}), HasSubstr("to 2097152 are possible"));
  EXPECT_THAT(message({.min_count = 0}), HasSubstr("at least 1"));
  try {
    TrainBytePairs(words, {}, [](int64_t done, int64_t) { return done < 2; });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
}

}  // namespace
}  // namespace toaster
