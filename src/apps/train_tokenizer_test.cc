// toaster train-tokenizer as a user calls it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "apps/program_output.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

using test::ProgramOutput;
using test::ReadFile;
using test::RunProgram;
using test::WriteFile;
using ::testing::HasSubstr;

class TrainTokenizerTest : public ::testing::Test {
 protected:
  TrainTokenizerTest() {
    fs::create_directories(Path("texts/more"));
    for (int i = 0; i < 40; ++i) text_ += "The toaster warms 12 slices of bread, slowly.\n";
    WriteFile(Path("texts/a.txt"), text_);
    WriteFile(Path("texts/ignored.bin"), "zzzzzz zzzzzz zzzzzz zzzzzz");
    WriteFile(Path("texts/more/b.jsonl"), R"({"text": "Zeppelins and zebras and Zeppelins"})"
                                          "\n\n" +
                                              conversation_ + "\n");
  }
  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }
  ProgramOutput Train(const std::string& arguments) const {
    return RunProgram("train-tokenizer " + arguments);
  }

  const test::TemporaryDirectory folder_;
  std::string text_;
  const std::string conversation_ =
      R"({"messages": [{"role": "user", "content": "quokka quokka"}, {"role": "assistant",)"
      R"( "content": "wombat wombat"}], "tools": [{"type": "function", "function": {"name": "f"}}]})";
};

TEST_F(TrainTokenizerTest, TheSameTextsGiveTheSameFileInAnyOrder) {
  const ProgramOutput first =
      Train(Path("texts") + " -o " + Path("one") + " --vocab-size 330 --threads 1");
  ASSERT_EQ(first.exit_code, 0) << first.text;
  EXPECT_THAT(first.text, HasSubstr("one: 330 tokens from "));
  const ProgramOutput second = Train(Path("texts/more/b.jsonl") + " " + Path("texts/a.txt") +
                                     " -o " + Path("two") + " --vocab-size 330 --threads 3");
  ASSERT_EQ(second.exit_code, 0) << second.text;
  EXPECT_EQ(ReadFile(Path("one/tokenizer.json")), ReadFile(Path("two/tokenizer.json")));
}

TEST_F(TrainTokenizerTest, TheFolderIsAModelsButForTheWeights) {
  const ProgramOutput trained =
      Train(Path("texts") + " -o " + Path("out") + " --vocab-size 600 --single-digits");
  ASSERT_EQ(trained.exit_code, 0) << trained.text;
  EXPECT_THAT(trained.text, HasSubstr("tokens of the 600 asked for"));
  const auto count = [&](const std::string& text) {
    const ProgramOutput output = RunProgram("tokenize --json " + Path("out") + " '" + text + "'");
    return nlohmann::json::parse(output.text)["count"].get<int>();
  };
  EXPECT_EQ(count(" toaster"), 1);
  EXPECT_EQ(count("12"), 2);
  EXPECT_EQ(count("quokka"), 1);  // of the conversation's prompt
  EXPECT_EQ(count("Zeppelins"), 1);
  EXPECT_GT(count("zzzzzz"), 1);  // of a file that is no text
  WriteFile(Path("request.json"), conversation_);
  const ProgramOutput rendered =
      RunProgram("render " + Path("out") + " -f " + Path("request.json"));
  EXPECT_EQ(rendered.exit_code, 0);
  EXPECT_THAT(rendered.text, HasSubstr("## Tools"));
  EXPECT_EQ(nlohmann::json::parse(ReadFile(Path("out/tokenizer_config.json")))["bos_token"],
            "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(nlohmann::json::parse(ReadFile(Path("out/generation_config.json")))["eos_token_id"], 1);
}

TEST_F(TrainTokenizerTest, ErrorsNameTheThing) {
  const std::string out = " -o " + Path("out");
  EXPECT_THAT(Train(Path("nothing") + out).text, HasSubstr("nothing: cannot open"));
  fs::create_directories(Path("empty"));
  EXPECT_THAT(Train(Path("empty") + out).text, HasSubstr("no .txt, .md or .jsonl files"));
  WriteFile(Path("bad.jsonl"), "{\"text\": \"fine\"}\n{\"words\": 3}\n");
  EXPECT_THAT(Train(Path("bad.jsonl") + out).text, HasSubstr("bad.jsonl:2: neither"));
  WriteFile(Path("worse.jsonl"), "\n\n{\"messages\": [{\"role\": \"king\"}]}\n");
  EXPECT_THAT(Train(Path("worse.jsonl") + out).text, HasSubstr("worse.jsonl:3: messages[0].role"));
  EXPECT_THAT(Train(Path("texts") + out + " --vocab-size 100").text, HasSubstr("are possible"));
  EXPECT_FALSE(fs::exists(Path("out/tokenizer.json")));
  ASSERT_EQ(Train(Path("texts") + out + " --vocab-size 300").exit_code, 0);
  EXPECT_THAT(Train(Path("texts") + out).text, HasSubstr("has a tokenizer.json; choose another"));
  EXPECT_EQ(Train(Path("texts") + out + " --force --vocab-size 310").exit_code, 0);
}

}  // namespace
}  // namespace toaster
