// The recipe of the built-in model: what recipes/builtin/make_data.py makes, the program can use.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "apps/program_output.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using test::ProgramOutput;
using test::ReadFile;
using test::RunProgram;
using test::WriteFile;

const std::string kRecipe = TOASTER_SOURCE_DIR "/recipes/builtin/";

class RecipeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string verses;
    for (const std::string book : {"Ge", "Ruth"}) {
      for (int verse = 1; verse < 30; ++verse)
        verses +=
            book + "1:" + std::to_string(verse) + " In the beginning of " + book + " was a word.\n";
    }
    WriteFile(Path("verses"), verses);
    Make("data");
  }
  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }
  void Make(const std::string& name) const {
    const std::string command = "python3 " + kRecipe + "make_data.py " + Path("verses") + " " +
                                Path(name) + " --scale 0.01 --cases 10";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  std::vector<json> Lines(const std::string& name) const {
    std::istringstream text(ReadFile(Path(name)));
    std::vector<json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  }

  const test::TemporaryDirectory folder_;
};

TEST_F(RecipeTest, TheSameArgumentsGiveTheSameFiles) {
  Make("again");
  int files = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(Path("data"))) {
    if (!entry.is_regular_file()) continue;
    const fs::path relative = fs::relative(entry.path(), Path("data"));
    EXPECT_EQ(ReadFile(entry.path()), ReadFile(Path("again") / relative)) << relative;
    ++files;
  }
  EXPECT_EQ(files, 24);
}

TEST_F(RecipeTest, NothingHeldOutIsTrainedOn) {
  std::set<std::string> trained;
  for (const json& line : Lines("data/instruct/calculator.jsonl")) {
    const std::string arguments = line["messages"][1]["tool_calls"][0]["function"]["arguments"];
    trained.insert(json::parse(arguments)["expression"]);
  }
  EXPECT_GT(trained.size(), 100u);
  for (const json& line : Lines("data/heldout/calculator.jsonl"))
    EXPECT_FALSE(trained.contains(line["check"]["expression"]));
  std::string texts;
  for (const char* name : {"passkey_short", "passkey_long", "keys_short", "keys_long"})
    texts += ReadFile(Path("data/instruct/") + name + ".jsonl");
  for (const int times : {1, 2, 4, 8, 16}) {
    for (const json& line : Lines("data/heldout/passkey_" + std::to_string(times) + ".jsonl"))
      EXPECT_EQ(texts.find(line["check"]["answer"].get<std::string>()), texts.npos);
  }
  std::set<json> answers;
  for (const json& line : Lines("data/instruct/json.jsonl"))
    answers.insert(json::parse(line["messages"].back()["content"].get<std::string>()));
  for (const json& line : Lines("data/heldout/json.jsonl"))
    EXPECT_FALSE(answers.contains(line["check"]["value"]));
  EXPECT_EQ(ReadFile(Path("data/base/bible.jsonl")).find("Ruth"), std::string::npos);
  EXPECT_NE(ReadFile(Path("data/heldout/bible.txt")).find("Ruth"), std::string::npos);
}

TEST_F(RecipeTest, TheProgramReadsWhatTheRecipeMakes) {
  const std::string model = Path("model");
  const ProgramOutput synth =
      RunProgram("synth --single-file --config " + kRecipe + "config.json " + model);
  ASSERT_EQ(synth.exit_code, 0) << synth.text;
  EXPECT_LT(fs::file_size(model + "/model.safetensors"), 8'000'000u);
  const ProgramOutput trained = RunProgram(
      "train-tokenizer " + Path("data/base") + " " + Path("data/instruct") + " -o " + model +
      " --vocab-size 1024 --single-digits --prompt-texts " + kRecipe + "prompt_texts.json");
  ASSERT_EQ(trained.exit_code, 0) << trained.text;
  std::string tasks;
  for (const char* name : {"chat", "calculator", "json", "passkey_1"})
    tasks += " --tasks " + Path("data/heldout/") + name + ".jsonl";
  const ProgramOutput measured =
      RunProgram("eval --json --limit 2 --max-tokens 2 " + model + tasks);
  ASSERT_EQ(measured.exit_code, 0) << measured.text;
  int64_t cases = 0;
  const json report = json::parse(measured.text);
  for (const json& result : report["results"]) cases += result["count"].get<int64_t>();
  EXPECT_EQ(cases, 2 * 4);
}

}  // namespace
}  // namespace toaster
