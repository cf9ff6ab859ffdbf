// The program as a user calls it: digests, errors, exit codes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/program_output.h"
#include "apps/random_model.h"
#include "backend/registry.h"
#include "base/temporary_directory.h"
#include "golden_set.h"

namespace toaster {
namespace {

using Outcome = test::ProgramOutput;
using test::RunProgram;

std::string LastLine(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  const size_t begin = text.find_last_of('\n', end);
  return text.substr(begin + 1, end - begin);
}

std::string Golden(const std::string& name) { return GoldenSet::Folder(name).string(); }

TEST(ProgramTest, LogitsDigestIsTheSameHoweverItIsComputed) {
  const std::string call = "logits " + Golden("g2_all_kinds") +
                           "/checkpoint --tokens 5,9,3,77,1,2,3,4,5,6,7,8 --steps 6 --digest ";
  const Outcome first = RunProgram(call);
  ASSERT_EQ(first.exit_code, 0) << first.text;
  const std::string digest = LastLine(first.text);
  EXPECT_EQ(digest.rfind("digest ", 0), 0u) << first.text;
  EXPECT_EQ(digest.size(), 7u + 32u);
  std::vector<std::string> ways = {"--backend reference", "--chunk 1", "--chunk 5 --threads 1",
                                   "--threads 3"};
  for (const std::string& table : RunnableKernels()) ways.push_back("--kernels " + table);
  for (const std::string& way : ways)
    EXPECT_EQ(LastLine(RunProgram(call + way).text), digest) << way;
  EXPECT_NE(LastLine(RunProgram(call + "--numerics fp32").text), digest);
}

TEST(ProgramTest, SeedGivesTheSameTextAndDigest) {
  const std::string call = "run --tokens 0,5,9,3 -n 12 --seed 7 --digest -q ";
  const Outcome first = RunProgram(call);
  ASSERT_EQ(first.exit_code, 0) << first.text;
  EXPECT_EQ(RunProgram(call + "--chunk 1 --threads 1").text, first.text);
  EXPECT_NE(RunProgram("run --tokens 0,5,9,3 -n 12 --seed 8 --digest -q").text, first.text);
}

TEST(ProgramTest, RecordWritesTheSameTensorsHoweverTheyAreComputed) {
  const test::TemporaryDirectory temporary;
  const std::string folder = temporary.path().string() + "/";
  const std::string call = "record " + Golden("g1_minimal") + "/checkpoint --runs " +
                           Golden("g1_minimal") + "/golden.json --digest -o " + folder +
                           "toaster_record.safetensors ";
  const Outcome first = RunProgram(call);
  ASSERT_EQ(first.exit_code, 0) << first.text;
  EXPECT_EQ(LastLine(RunProgram(call + "--chunk 7 --threads 1").text), LastLine(first.text));
  const SafetensorsFile file(std::filesystem::path(folder) / "toaster_record.safetensors");
  EXPECT_NE(file.Find("fp32.mtp.decode_logits"), nullptr);
  EXPECT_NE(file.Find("official.local.layer.2.hidden"), nullptr);
}

TEST(ProgramTest, NamesWhatIsWrongWithTheInput) {
  const auto expect = [](const std::string& arguments, const std::string& message) {
    const Outcome outcome = RunProgram(arguments);
    EXPECT_EQ(outcome.exit_code, 1) << arguments;
    EXPECT_NE(outcome.text.find(message), std::string::npos) << arguments << ": " << outcome.text;
    EXPECT_EQ(outcome.text.find('\n'), outcome.text.size() - 1) << "one line: " << outcome.text;
  };
  const test::ScopedRandomModel model;
  const test::TemporaryDirectory temporary;
  const std::string empty = temporary.path().string();
  expect("run /no/such/model -p x", "/no/such/model");
  expect("run " + empty + " -p x", empty + ": no model here: config.json is missing");
  expect("run --tokens 0,512",
         "token 512 is outside the vocabulary; this model knows tokens 0 to 511");
  expect("run --tokens 0,x", "\"x\" is no token id");
  expect("run -p x --temperature -1", "temperature is -1; it has to be between 0 and 100");
  expect("run -p x --logit-bias 5", "--logit-bias 5: write TOKEN:BIAS");
  expect("run -f /no/such/file", "/no/such/file");
  expect("logits --tokens 1 --kernels sse", "kernels \"sse\" are unknown");
}

// A cut shard and a NaN scale of an expert that is used.
TEST(ProgramTest, NamesTheTensorOfADamagedFile) {
  namespace fs = std::filesystem;
  const test::TemporaryDirectory temporary;
  const fs::path folder = temporary.path() / "model";
  fs::copy(GoldenSet::Folder("g1_minimal") / "checkpoint", folder);
  const fs::path file = folder / "model.safetensors";
  int64_t offset = 0, bytes = 0;
  {
    const SafetensorsFile sound(file);
    const StoredTensor* scales = sound.Find("layers.2.ffn.experts.0.w1.scale");
    ASSERT_NE(scales, nullptr);
    offset = scales->offset;
    bytes = scales->bytes;
  }
  {
    std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(offset);
    out << std::string(static_cast<size_t>(bytes), '\xff');
  }
  // Expert 0 of a scored layer has a bias that lets every token choose it.
  const Outcome scale = RunProgram("run " + folder.string() + " --tokens 1,2,3,4,5,6,7,8 -n 1");
  EXPECT_EQ(scale.exit_code, 1);
  EXPECT_NE(scale.text.find("layers.2.ffn.experts.0.w1.weight has the scale NaN at [0, 0]"),
            std::string::npos)
      << scale.text;
  fs::resize_file(file, static_cast<uintmax_t>(offset));
  const Outcome cut = RunProgram("run " + folder.string() + " --tokens 1");
  EXPECT_EQ(cut.exit_code, 1);
  EXPECT_NE(cut.text.find("it is cut short, download it again"), std::string::npos) << cut.text;
}

TEST(ProgramTest, EveryFlagHasAnEnvironmentVariable) {
  for (const char* command : {"run", "logits", "record", "inspect", "verify", "synth", "tokenize",
                              "detokenize", "render"}) {
    const Outcome help = RunProgram(std::string(command) + " --help");
    ASSERT_EQ(help.exit_code, 0) << command;
    std::string line, flag;
    for (const char c : help.text + "\n") {
      if (c != '\n') {
        line += c;
        continue;
      }
      const size_t dash = line.find("--");
      const bool is_flag = line.rfind("  -", 0) == 0 && line.find("--help") == std::string::npos;
      if (is_flag && dash != std::string::npos) {
        EXPECT_NE(line.find("(Env:TOASTER_"), std::string::npos) << command << ": " << line;
      }
      line.clear();
    }
  }
}

// The fields that scripts read.
TEST(ProgramTest, BenchPrintsItsFiguresAsJson) {
  const Outcome outcome =
      RunProgram("bench --json --prefill 8 --depth 0,16 --batch 1,2 --repeat 1 --steps 1 ");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const auto json = nlohmann::json::parse(outcome.text.substr(outcome.text.find('{')));
  EXPECT_GT(json.at("limits").at("read_gb_per_s"), 0);
  EXPECT_GT(json.at("limits").at("bf16_gflop_per_s"), 0);
  EXPECT_GT(json.at("limits").at("int8_gop_per_s"), 0);
  EXPECT_GT(json.at("limits").at("fp32_gflop_per_s"), 0);
  EXPECT_TRUE(json.at("limits").contains("disk_gb_per_s"));
  EXPECT_GT(json.at("open_s"), 0);
  EXPECT_GT(json.at("peak_rss_bytes"), 0);
  ASSERT_EQ(json.at("runs").size(), 5u);
  const auto& run = json["runs"][4];
  EXPECT_EQ(run.at("kind"), "decode");
  EXPECT_EQ(run.at("tokens"), 2);
  EXPECT_EQ(run.at("depth"), 16);
  EXPECT_EQ(run.at("batch"), 2);
  for (const char* key : {"tokens_per_s", "bytes", "flops", "share_of_limit"}) {
    EXPECT_GT(run.at(key), 0) << key;
  }
  EXPECT_THAT(run.at("limit"), ::testing::AnyOf("read", "compute"));
}

}  // namespace
}  // namespace toaster
