#include "chat/python_json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/error.h"

namespace toaster {
namespace {

std::string Again(std::string_view text) { return DumpPythonJson(ParsePythonJson(text, "test")); }

// The right-hand sides are what Python 3.11 prints for json.dumps(json.loads(...),
// ensure_ascii=False).
TEST(PythonJsonTest, WritesWhatPythonWrites) {
  EXPECT_EQ(Again(R"({"b":1,"a":[true,false,null],"":{}})"),
            R"({"b": 1, "a": [true, false, null], "": {}})");
  EXPECT_EQ(Again(R"([ ])"), "[]");
  EXPECT_EQ(Again(R"("\u00e9\ud83d\ude00\/\u2028\u007f")"), "\"é😀/\u2028\x7f\"");
  EXPECT_EQ(Again(R"("\"\\\b\f\n\r\t\u0000\u001f")"), R"("\"\\\b\f\n\r\t\u0000\u001f")");
  EXPECT_EQ(Again(R"({"a":1,"b":2,"a":3})"), R"({"a": 3, "b": 2})");
}

TEST(PythonJsonTest, NumbersAreThoseOfPython) {
  for (const auto& [text, expected] : std::vector<std::pair<const char*, const char*>>{
           {"0", "0"},
           {"-0", "0"},
           {"-0.0", "-0.0"},
           {"1.0", "1.0"},
           {"1.50", "1.5"},
           {"1E5", "100000.0"},
           {"0.1e1", "1.0"},
           {"1e15", "1000000000000000.0"},
           {"1e16", "1e+16"},
           {"123456789012345680.0", "1.2345678901234568e+17"},
           {"9007199254740993.0", "9007199254740992.0"},
           {"0.0001", "0.0001"},
           {"0.00001", "1e-05"},
           {"1.5e-7", "1.5e-07"},
           {"1e22", "1e+22"},
           {"1e100", "1e+100"},
           {"5e-324", "5e-324"},
           {"1.7976931348623157e308", "1.7976931348623157e+308"},
           {"123456789.125", "123456789.125"},
           {"0.1", "0.1"},
           {"-2.5", "-2.5"},
           {"18446744073709551615", "18446744073709551615"},
           {"-9223372036854775809", "-9223372036854775809"},
           {"123456789012345678901234567890", "123456789012345678901234567890"}}) {
    EXPECT_EQ(Again(text), expected);
  }
}

TEST(PythonJsonTest, FloatsReadBackToThemselves) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20'000; ++round) {
    const uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    const std::string text = PythonFloat(value);
    ASSERT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
    ASSERT_NE(text.find_first_of(".e"), std::string::npos);
  }
}

TEST(PythonJsonTest, WhatIsNoJson) {
  for (const char* text : {"", "{", "[1,]", "NaN", "[Infinity]", "1e999", "01", "'a'",
                           "\"\\ud800\"", "\"\xFF\"", "1 2", "nul"}) {
    EXPECT_FALSE(TryParsePythonJson(text)) << text;
    EXPECT_THROW(ParsePythonJson(text, "test"), Error);
  }
  using namespace std::string_view_literals;
  for (const std::string_view text : {"1\0"sv, "\0"sv, "[1]\0[2]"sv, "\"\0\""sv}) {
    EXPECT_FALSE(TryParsePythonJson(text));
  }
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(TryParsePythonJson(nested(kMaxJsonDepth)));
  EXPECT_FALSE(TryParsePythonJson(nested(kMaxJsonDepth + 1)));
  EXPECT_FALSE(TryParsePythonJson(std::string(1'000'000, '[')));
  const auto many = [](int64_t values) {
    std::string list = "[";
    for (int64_t i = 2; i < values; ++i) list += "1,";
    return list + "1]";
  };
  EXPECT_TRUE(TryParsePythonJson(many(kMaxJsonValues)));
  EXPECT_FALSE(TryParsePythonJson(many(kMaxJsonValues + 1)));
}

TEST(PythonJsonTest, TruthIsPythons) {
  for (const char* text : {"null", "false", "0", "0.0", "-0.0", "\"\"", "[]", "{}"})
    EXPECT_FALSE(ParsePythonJson(text, "test").Truthy()) << text;
  for (const char* text : {"true", "1", "0.1", "\"0\"", "[0]", "{\"\": 0}"})
    EXPECT_TRUE(ParsePythonJson(text, "test").Truthy()) << text;
}

}  // namespace
}  // namespace toaster
