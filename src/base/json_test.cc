#include "base/json.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/printable.h"

namespace toaster {
namespace {

std::string MessageOf(std::string_view text) {
  try {
    ParseJson(text, "file.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
    return error.what();
  }
  return "";
}

TEST(Json, ReadsOrdinaryText) {
  const nlohmann::json value = ParseJson(R"({"a": [1, {"a": 2}], "b": {"a": 3}})", "file.json");
  EXPECT_EQ(value["a"][1]["a"], 2);
  EXPECT_EQ(value["b"]["a"], 3);
}

TEST(Json, NamesTheFaultAndItsPlace) {
  EXPECT_EQ(MessageOf("{\"a\": x}"), "file.json: not valid JSON at byte 7 of 8");
  EXPECT_EQ(MessageOf(""), "file.json: not valid JSON at byte 1 of 0");
  EXPECT_EQ(MessageOf("[1] 2"), "file.json: not valid JSON at byte 5 of 5");
  EXPECT_EQ(MessageOf("[NaN]"), "file.json: not valid JSON at byte 2 of 5");
  EXPECT_EQ(MessageOf("[\"\xff\"]"), "file.json: not valid JSON at byte 3 of 5");
  EXPECT_EQ(MessageOf("[1e999]"), "file.json: not valid JSON: a number out of range");
}

TEST(Json, RefusesRepeatedKeys) {
  EXPECT_EQ(MessageOf(R"({"a": 1, "a": 2})"),
            "file.json: key 'a' stands twice in one object; remove one");
  EXPECT_EQ(MessageOf(R"([{"a": 1}, {"b": [{"a": 1}, 2], "c": 1, "c\u000a": 1, "b": 2}])"),
            "file.json: key 'b' stands twice in one object; remove one");
  EXPECT_EQ(MessageOf(R"([{"a": 1}, {"a": [{"a": 1}, {"a": 1}]}])"), "");
}

TEST(Json, LimitsNesting) {
  EXPECT_EQ(MessageOf(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_EQ(MessageOf(std::string(65, '[') + std::string(65, ']')),
            "file.json: JSON nested deeper than 64");
  EXPECT_EQ(MessageOf(std::string(1000000, '[')), "file.json: JSON nested deeper than 64");
}

TEST(Printable, KeepsTextAndShowsTheRest) {
  EXPECT_EQ(Printable("layers.0 \xe2\x96\x81"), "layers.0 \xe2\x96\x81");
  EXPECT_EQ(Printable("a\nb\x1b[0m"), "a\\x0ab\\x1b[0m");
  EXPECT_EQ(Printable(std::string_view("\0\x7f", 2)), "\\x00\\x7f");
  EXPECT_EQ(Printable("\xff\xe2\x96"), "\\xff\\xe2\\x96");
  EXPECT_EQ(Printable("\xc2\x9b"), "\\xc2\\x9b");
  EXPECT_EQ(Printable(std::string(161, 'x')), std::string(160, 'x') + "...");
}

}  // namespace
}  // namespace toaster
