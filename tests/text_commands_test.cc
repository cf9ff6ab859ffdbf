// toaster tokenize, detokenize and render as a user calls them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/program_output.h"
#include "base/temporary_directory.h"

namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kTokenizer = TOASTER_SOURCE_DIR "/tests/data/tokenizer/tokenizer.json";

toaster::test::ProgramOutput RunWithInput(const std::string& arguments,
                                          const std::string& input = "") {
  const toaster::test::TemporaryDirectory folder;
  const std::filesystem::path file = folder.path() / "input";
  std::ofstream(file, std::ios::binary) << input;
  return toaster::test::RunProgram(arguments + " < '" + file.string() + "'");
}

TEST(TextCommandsTest, TokenizeShowsOffsetsIdsAndPieces) {
  const toaster::test::ProgramOutput plain = RunWithInput("tokenize " + kTokenizer + " 'a<think>'");
  EXPECT_EQ(plain.exit_code, 0);
  EXPECT_THAT(plain.text, StartsWith("       0      100  a\n       1 "));
  EXPECT_THAT(plain.text, ::testing::Not(HasSubstr("  <think>\n")));
  EXPECT_THAT(RunWithInput("tokenize --special " + kTokenizer + " 'a<think>'").text,
              HasSubstr("       1     1165  <think>\n"));
  const auto json =
      nlohmann::json::parse(RunWithInput("tokenize --json " + kTokenizer, "a\n\xFF").text);
  EXPECT_EQ(json["count"], 3);
  EXPECT_EQ(json["tokens"][2]["bytes"], "ff");
  EXPECT_EQ(json["tokens"][2]["begin"], 2);
}

TEST(TextCommandsTest, DetokenizeGivesTheBytesBack) {
  const std::string text = "Zeile 1\nZeile 2 \xE2\x82\xAC \xFF end";
  const auto json = nlohmann::json::parse(RunWithInput("tokenize --json " + kTokenizer, text).text);
  std::string ids;
  for (const auto& token : json["tokens"]) ids += std::to_string(token["id"].get<int>()) + ",";
  EXPECT_EQ(RunWithInput("detokenize " + kTokenizer, "[" + ids + "]").text, text);
  const toaster::test::ProgramOutput bad = RunWithInput("detokenize " + kTokenizer + " 1 two");
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_EQ(bad.text,
            "toaster: \"two\" is no token id; give numbers with blanks or commas between\n");
  EXPECT_EQ(RunWithInput("detokenize " + kTokenizer + " 99999").exit_code, 1);
}

TEST(TextCommandsTest, RenderMarksTheStablePrefix) {
  const toaster::test::TemporaryDirectory folder;
  const std::filesystem::path& model = folder.path();
  std::ofstream(model / "config.json") << R"({"vocab_size": 300})";
  const std::string request =
      R"({"thinking": true, "messages": [{"role": "user", "content": "Hi"}]})";
  const toaster::test::ProgramOutput text = RunWithInput("render " + model.string(), request);
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.text,
              StartsWith("<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>\n--- the next turn"));
  const auto json =
      nlohmann::json::parse(RunWithInput("render --json " + model.string(), request).text);
  EXPECT_EQ(json["tokens"], nlohmann::json::parse("[0, 259, 75, 108, 260, 261]"));
  EXPECT_EQ(json["stable_tokens"], 5);
  const toaster::test::ProgramOutput tools = RunWithInput(
      "render " + model.string(), R"({"messages": [], "tools": [{"function": {"name": "f"}}]})");
  EXPECT_EQ(tools.exit_code, 1);
  EXPECT_THAT(tools.text, HasSubstr("has no prompt text for tools"));
  EXPECT_THAT(RunWithInput("render " + model.string(), "{").text,
              HasSubstr("standard input: not valid JSON at byte 2"));
}

}  // namespace
