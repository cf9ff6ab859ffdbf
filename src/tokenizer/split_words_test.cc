#include "tokenizer/split_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

using Engine = WordSplitter::Engine;

std::vector<std::string> Words(const WordSplitter& splitter, std::string_view text) {
  std::vector<uint32_t> ends;
  splitter.Split(text, ends);
  std::vector<std::string> words;
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    EXPECT_LT(begin, end);
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin, text.size());
  return words;
}

class SplitWordsTest : public ::testing::Test {
 protected:
  const WordSplitter scanner_{DeepSeekExpressions(), "test"};
  const WordSplitter pcre2_{DeepSeekExpressions(), "test", Engine::kPcre2};
};

TEST_F(SplitWordsTest, EachRule) {
  const auto expect = [&](std::string_view text, const std::vector<std::string>& words) {
    EXPECT_EQ(Words(scanner_, text), words) << text;
    EXPECT_EQ(Words(pcre2_, text), words) << text;
  };
  expect("", {});
  expect("Hello, world", {"Hello", ",", " world"});
  expect("12345678", {"123", "456", "78"});
  expect("a1b22", {"a", "1", "b", "22"});
  expect("x = (y)", {"x", " =", " (", "y", ")"});
  expect("foo.bar", {"foo", ".bar"});    // one mark takes ASCII letters with it
  expect("foo.éa", {"foo", ".", "éa"});  // but no others
  expect("...abc", {"...", "abc"});      // nor do several marks
  expect("a  b", {"a", " ", " b"});      // the last blank goes with the word
  expect("a \n\n  b", {"a", " \n\n", " ", " b"});
  expect("a   ", {"a", "   "});
  expect("a   1", {"a", "   ", "1"});  // digits end a piece: the blanks are at its end
  expect(" !?\r\n\r\nx", {" !?\r\n\r\n", "x"});
  expect("日本語とカナ、です。", {"日本語とカナ", "、", "です", "。"});
  expect("ア・イ\n", {"ア", "・", "イ", "\n"});
  expect("中 文", {"中", " ", "文"});
  expect("\tx\xC2\xA0y", {"\tx", "\xC2\xA0y"});
  expect(
      "\xEF\xBB\xBF"
      "ab",
      {"\xEF\xBB\xBF"
       "ab"});  // U+FEFF is no white space
  expect(
      "a\xC2\x85\xC2\x85"
      "b",
      {"a", "\xC2\x85",
       "\xC2\x85"
       "b"});                                          // U+0085 is
  expect("\x01\x02 \x03", {"\x01\x02", " ", "\x03"});  // what nothing matches stays together
  expect("e\xCC\x81\xCC\x81!", {"e\xCC\x81\xCC\x81", "!"});
}

TEST_F(SplitWordsTest, IllFormedBytesAreWordsOfTheirOwn) {
  for (const WordSplitter* splitter : {&scanner_, &pcre2_}) {
    EXPECT_EQ(Words(*splitter, "a \xFF\xFE b"),
              (std::vector<std::string>{"a", " ", "\xFF\xFE", " b"}));
    EXPECT_EQ(Words(*splitter, "\xC3"), (std::vector<std::string>{"\xC3"}));
    EXPECT_EQ(Words(*splitter, "x  \xE2\x82"), (std::vector<std::string>{"x", "  ", "\xE2\x82"}));
  }
}

// Every code point, alone and in the neighbourhoods where the rules tell classes apart.
TEST_F(SplitWordsTest, EveryCodePointAgreesWithTheExpressions) {
  std::string text;
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string c;
    AppendUtf8(code_point, c);
    text += c + "a " + c + c + " \n" + c + "1" + c + "\n." + c + "中" + c;
    if (text.size() > 60'000 || code_point == 0x10FFFF) {
      ASSERT_EQ(Words(scanner_, text), Words(pcre2_, text)) << "up to " << code_point;
      text.clear();
    }
  }
}

TEST_F(SplitWordsTest, RandomTextsAgreeWithTheExpressions) {
  const std::vector<std::string> alphabet = {"a",
                                             "Z",
                                             "é",
                                             "ß",
                                             " ",
                                             " ",
                                             "  ",
                                             "\n",
                                             "\r",
                                             "\t",
                                             "\xC2\xA0",
                                             "\xE3\x80\x80",
                                             "1",
                                             "٣",
                                             "²",
                                             "中",
                                             "語",
                                             "カ",
                                             "の",
                                             "・",
                                             "゠",
                                             "゙",
                                             "、",
                                             "!",
                                             "/",
                                             "_",
                                             "~",
                                             "$",
                                             "€",
                                             "…",
                                             "©",
                                             "\xCC\x81",
                                             "\xE2\x80\x8D",
                                             "😀",
                                             "🏽",
                                             "\x01",
                                             "\xEF\xBB\xBF",
                                             "\xC2\x85",
                                             "\xCD\xB8",
                                             "\xFF",
                                             "\xE2\x82",
                                             "\xF0\x9F",
                                             "ｱ",
                                             "Ⅷ",
                                             "〇",
                                             "龦"};
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    const size_t length = random() % 24;
    for (size_t i = 0; i < length; ++i) text += alphabet[random() % alphabet.size()];
    ASSERT_EQ(Words(scanner_, text), Words(pcre2_, text)) << text;
  }
}

TEST(UnicodeClassesTest, WhiteSpaceIsTheProperty) {
  const UnicodeClasses& classes = UnicodeClasses::Get();
  int white = 0;
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point)
    white += classes[code_point] == kWhiteSpace;
  EXPECT_EQ(white, 25);
  EXPECT_EQ(classes[0x85], kWhiteSpace);
  EXPECT_NE(classes[0x180E], kWhiteSpace);
  EXPECT_NE(classes[0xFEFF], kWhiteSpace);
}

TEST(WordSplitterTest, OtherExpressionsRunToo) {
  const WordSplitter splitter({"[a-c]+", "\\s", "[\\s\\d]x"}, "test");
  EXPECT_EQ(Words(splitter, "abcz 1xab"), (std::vector<std::string>{"abc", "z", " ", "1x", "ab"}));
  EXPECT_EQ(Words(WordSplitter({}, "test"), "one word"), (std::vector<std::string>{"one word"}));
  // Empty matches are no splits.
  EXPECT_EQ(Words(WordSplitter({"x*"}, "test"), "axxb"),
            (std::vector<std::string>{"a", "xx", "b"}));
}

TEST(WordSplitterTest, BadExpressionsAreNamed) {
  for (const auto& [expression, part] :
       std::vector<std::pair<std::string, std::string>>{{"(a", "\"(a\" is not understood"},
                                                        {"[^\\S]", "\\S inside a class"},
                                                        {std::string(5000, 'a'), "5000 bytes"},
                                                        {"a\\Cb", "not understood"}}) {
    try {
      const WordSplitter splitter({expression}, "file.json");
      FAIL() << expression;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_THAT(error.what(), ::testing::StartsWith("file.json: "));
      EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
    }
  }
}

TEST(WordSplitterTest, AnExpressionThatNeverEndsIsGivenUp) {
  const WordSplitter splitter({"(a+)+$"}, "test");
  std::vector<uint32_t> ends;
  EXPECT_THROW(splitter.Split(std::string(200, 'a') + "!", ends), Error);
}

}  // namespace
}  // namespace toaster
