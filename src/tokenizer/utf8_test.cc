#include "tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace toaster {
namespace {

TEST(Utf8Test, EveryCodePointComesBack) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    std::string text;
    AppendUtf8(code_point, text);
    const bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
    const Utf8Character character = FirstCharacter(text);
    ASSERT_EQ(character.length, surrogate ? 0 : text.size()) << code_point;
    ASSERT_EQ(character.code_point, surrogate ? 0 : code_point);
  }
}

TEST(Utf8Test, IllFormedSequencesAreRefused) {
  for (const char* text : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                           "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
                           "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC3(", "\xE2(\x82"}) {
    EXPECT_EQ(FirstCharacter(text).length, 0u) << text;
    EXPECT_EQ(WellFormedPrefix(std::string("a\xC3\xA9") + text), 3u);
  }
}

TEST(Utf8Test, UnfinishedSuffixIsWhatAContinuationCouldComplete) {
  EXPECT_EQ(UnfinishedSuffix(""), 0u);
  EXPECT_EQ(UnfinishedSuffix("a"), 0u);
  EXPECT_EQ(UnfinishedSuffix("a\xC3"), 1u);
  EXPECT_EQ(UnfinishedSuffix("a\xC3\xA9"), 0u);
  EXPECT_EQ(UnfinishedSuffix("\xE2\x82"), 2u);
  EXPECT_EQ(UnfinishedSuffix("\xF0\x9F\x98"), 3u);
  EXPECT_EQ(UnfinishedSuffix("\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(UnfinishedSuffix("\xC0"), 0u);      // begins nothing
  EXPECT_EQ(UnfinishedSuffix("\xE0\x80"), 0u);  // overlong already
  EXPECT_EQ(UnfinishedSuffix("\x80\x80\x80\x80"), 0u);
}

// The examples of the Unicode standard, chapter 3, table 3-8 to 3-11.
TEST(Utf8Test, ReplacementIsOnePerMaximalPart) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(ReplaceIllFormed("plain \xC3\xA9"), "plain \xC3\xA9");
  EXPECT_EQ(ReplaceIllFormed("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ReplaceIllFormed("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ReplaceIllFormed("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(ReplaceIllFormed("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

}  // namespace
}  // namespace toaster
