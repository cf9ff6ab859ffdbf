// The built program trains a small model: a killed run goes on and ends with the same bits; what it
// makes is a model for every other command.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/program_output.h"
#include "base/random.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class TrainProgram : public ::testing::Test {
 protected:
  // A configuration for a run of `steps` steps in folder/name; the model has bytes as tokens.
  fs::path Config(const std::string& name, int64_t steps) {
    nlohmann::json model =
        nlohmann::json::parse(test::ReadFile(test::GoldenCheckpoint("g1_minimal") / "config.json"));
    model["vocab_size"] = 320;
    model["num_hidden_layers"] = 2;
    model["compress_ratios"] = {0, 4, 0};
    const nlohmann::json config = {{"model", model},
                                   {"data", "text.txt"},
                                   {"validation_share", 0.2},
                                   {"output", name},
                                   {"sequence_tokens", 32},
                                   {"batch_tokens", 32},
                                   {"stages", {{{"steps", steps}}}},
                                   {"learning_rate", {{"peak", 0.01}, {"warmup_steps", 2}}},
                                   {"checkpoint_steps", 2},
                                   {"validation_steps", 5}};
    std::string text;
    for (int i = 0; i < 40; ++i) text += "document " + std::to_string(i) + "\n<|endoftext|>\n";
    test::WriteFile(folder_.path() / "text.txt", text);
    const fs::path file = folder_.path() / (name + ".json");
    test::WriteFile(file, config.dump());
    return file;
  }
  std::string Weights(const std::string& name) {
    return test::ReadFile(folder_.path() / name / "model" / "model.safetensors");
  }
  // Starts the run and kills it `after`; false if it was done before.
  bool KillAfter(const fs::path& config, std::chrono::milliseconds after) {
    const pid_t process = fork();
    if (process == 0) {
      freopen("/dev/null", "w", stdout);
      freopen("/dev/null", "w", stderr);
      execl(TOASTER_PROGRAM, TOASTER_PROGRAM, "train", config.c_str(), "--threads", "1", nullptr);
      _exit(127);
    }
    std::this_thread::sleep_for(after);
    kill(process, SIGKILL);
    int status = 0;
    waitpid(process, &status, 0);
    return WIFSIGNALED(status);
  }
  void KillsChangeNothing(int kills, int64_t steps, std::chrono::milliseconds most) {
    ASSERT_EQ(test::RunProgram("train " + Config("whole", steps).string()).exit_code, 0);
    const fs::path config = Config("killed", steps);
    int killed = 0;
    for (uint64_t i = 0; i < static_cast<uint64_t>(kills); ++i) {
      const auto share = Philox(5, i, 0)[0] % static_cast<uint64_t>(most.count());
      if (KillAfter(config, std::chrono::milliseconds(share))) {
        ++killed;
      } else {  // done: kill another run from the beginning
        ASSERT_EQ(Weights("killed"), Weights("whole"));
        fs::remove_all(folder_.path() / "killed");
      }
    }
    EXPECT_GT(killed, 0);
    const test::ProgramOutput end = test::RunProgram("train " + config.string());
    ASSERT_EQ(end.exit_code, 0) << end.text;
    EXPECT_EQ(Weights("killed"), Weights("whole"));
    EXPECT_EQ(Steps("killed"), Steps("whole"));
  }
  // The steps of a run's log.
  std::vector<int64_t> Steps(const std::string& name) {
    std::ifstream log(folder_.path() / name / "log.jsonl");
    std::vector<int64_t> steps;
    for (std::string line; std::getline(log, line);)
      steps.push_back(nlohmann::json::parse(line).at("step"));
    return steps;
  }

  const test::TemporaryDirectory folder_;
};

TEST_F(TrainProgram, TrainsAndGoesOnAfterKills) {
  KillsChangeNothing(3, 6, std::chrono::milliseconds(4000));
  const std::string model = (folder_.path() / "whole" / "model").string();
  const test::ProgramOutput verified = test::RunProgram("verify " + model);
  EXPECT_EQ(verified.exit_code, 0) << verified.text;
  EXPECT_EQ(test::RunProgram("run " + model + " -p doc --max-tokens 4").exit_code, 0);
  const std::string chart = (folder_.path() / "chart.svg").string();
  const test::ProgramOutput drawn =
      test::RunProgram("plot " + (folder_.path() / "whole").string() + " -o " + chart);
  ASSERT_EQ(drawn.exit_code, 0) << drawn.text;
  for (const char* title : {"Loss", "Learning rate", "Gradient norm", "Busiest expert"})
    EXPECT_THAT(test::ReadFile(chart), HasSubstr(title));
  const test::ProgramOutput together =
      test::RunProgram("plot " + (folder_.path() / "whole").string() + " " +
                       (folder_.path() / "killed").string() + " -o " + chart);
  ASSERT_EQ(together.exit_code, 0) << together.text;
  for (const char* name : {"whole", "killed", "Training loss", "Busiest expert"})
    EXPECT_THAT(test::ReadFile(chart), HasSubstr(name));
}

TEST_F(TrainProgram, NamesWhatIsWrong) {
  const fs::path config = Config("wrong", 4);
  nlohmann::json json = nlohmann::json::parse(test::ReadFile(config));
  json["stepz"] = 4;
  test::WriteFile(config, json.dump());
  test::ProgramOutput output = test::RunProgram("train " + config.string());
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.text, HasSubstr("\"stepz\" is no key"));
  output = test::RunProgram("train " + (folder_.path() / "nowhere.json").string());
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.text, HasSubstr("nowhere.json"));
  output = test::RunProgram("plot " + folder_.path().string() + " -o x.svg");
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.text, HasSubstr("log.jsonl"));
  output =
      test::RunProgram("plot " + folder_.path().string() + " " + config.string() + " -o x.svg");
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.text, HasSubstr("wrong.json: is no folder of toaster train"));
}

using TrainProgramLongTest = TrainProgram;

TEST_F(TrainProgramLongTest, FiftyKillsChangeNothing) {
  KillsChangeNothing(50, 40, std::chrono::milliseconds(8000));
}

}  // namespace
}  // namespace toaster
