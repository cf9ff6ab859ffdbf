// toaster eval as a user calls it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/program_output.h"
#include "apps/random_model.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using nlohmann::json;
using test::ProgramOutput;
using test::ReadFile;
using test::RunProgram;
using test::WriteFile;
using ::testing::HasSubstr;

class EvalTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }
  json Results(const std::string& arguments) const {
    const ProgramOutput output = RunProgram("eval --threads 1 --json " + arguments);
    EXPECT_EQ(output.exit_code, 0) << output.text;
    const json report = json::parse(output.text);
    EXPECT_EQ(report["complete"], true);
    return report["results"];
  }
  const test::TemporaryDirectory folder_;
  const test::ScopedRandomModel model_;
};

TEST_F(EvalTest, ChoicesFollowFromTheLogits) {
  // The model's own order of the tokens after BOS, a, b: byte b is token 3 + b.
  const ProgramOutput logits = RunProgram("logits --tokens 0,100,101 --top 512 --json");
  const json parsed = json::parse(logits.text);
  std::vector<std::string> letters;
  for (const json& entry : parsed["top"]) {
    const int byte = entry["token"].get<int>() - 3;
    if (byte >= 'a' && byte <= 'z') letters.push_back(std::string(1, static_cast<char>(byte)));
  }
  ASSERT_EQ(letters.size(), 26u);
  std::string cases;
  for (const int answer : {0, 1, 0}) {
    const json choices = {letters[3], letters[20], letters[9]};
    cases += json({{"context", "ab"}, {"choices", choices}, {"answer", answer}}).dump() + "\n";
  }
  WriteFile(Path("choices.jsonl"), cases);
  const json result = Results("--choices " + Path("choices.jsonl"))[0];
  EXPECT_EQ(result["count"], 3);
  EXPECT_EQ(result["right"], 2);
  EXPECT_EQ(result["per_byte"]["right"], 2);
}

TEST_F(EvalTest, MeasuresEverythingTheSameHoweverItIsComputed) {
  WriteFile(Path("text.txt"), "The toaster is warm, and the bread is brown.");
  WriteFile(Path("tasks.jsonl"),
            R"({"messages": [{"role": "user", "content": "Hi"}], "group": "greetings", )"
            R"("check": {"kind": "text", "answer": "Good morning."}})"
            "\n"
            R"({"messages": [{"role": "user", "content": "{}"}], "thinking": true, )"
            R"("check": {"kind": "json", "value": {}}})");
  const std::string call = "--text " + Path("text.txt") + " --needle 200 --depths 0,1" +
                           " --needle-cases 2 --tasks " + Path("tasks.jsonl") +
                           " --max-tokens 6 --log " + Path("log.jsonl");
  const json results = Results(call);
  ASSERT_EQ(results.size(), 5u);
  EXPECT_EQ(results[0]["tokens"], 44);
  EXPECT_NEAR(results[0]["perplexity"].get<double>(),
              std::exp2(results[0]["bits_per_byte"].get<double>()), 1e-6);  // a byte per token
  EXPECT_EQ(results[1]["kind"], "needle");
  EXPECT_EQ(results[1]["form"], "text");
  EXPECT_LE(results[1]["longest"], 200);
  EXPECT_GT(results[1]["longest"], 150);
  EXPECT_EQ(results[2]["depth"], 1);
  EXPECT_EQ(results[2]["count"], 2);
  EXPECT_EQ(results[3]["group"], "greetings");
  EXPECT_EQ(results[3]["right"], 0);
  EXPECT_EQ(results[4]["group"], "json");
  const std::string log = ReadFile(Path("log.jsonl"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 6);
  EXPECT_EQ(Results(call + " --chunk 7 --kernels portable"), results);
  EXPECT_EQ(ReadFile(Path("log.jsonl")), log);
  const ProgramOutput text = RunProgram("eval --text " + Path("text.txt"));
  EXPECT_THAT(text.text, HasSubstr("bits per byte (44 tokens of 44 bytes; windows of 4096"));
}

TEST_F(EvalTest, ErrorsNameTheThing) {
  EXPECT_THAT(RunProgram("eval").text, HasSubstr("nothing to measure; give --text"));
  WriteFile(Path("bad.jsonl"), "{\"messages\": []}\n");
  EXPECT_THAT(RunProgram("eval --tasks " + Path("bad.jsonl")).text,
              HasSubstr("bad.jsonl:1: check: is missing"));
  WriteFile(Path("tools.jsonl"),
            R"({"messages": [], "tools": [{"function": {"name": "calculator"}}], )"
            R"("check": {"kind": "calculator", "expression": "1+1"}})");
  EXPECT_THAT(RunProgram("eval --tasks " + Path("tools.jsonl")).text,
              HasSubstr("tools.jsonl: case 1: "));
  EXPECT_THAT(RunProgram("eval --needle 20").text, HasSubstr("do not fit into 20 tokens"));
}

}  // namespace
}  // namespace toaster
