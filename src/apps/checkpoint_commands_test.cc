// inspect, verify and synth as a user runs them.

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "apps/program_output.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using nlohmann::json;
using test::GoldenCheckpoint;
using test::ReadFile;
using test::RunProgram;
using test::TemporaryDirectory;
using test::WriteFile;
using testing::AllOf;
using testing::HasSubstr;

json InspectJson(const std::string& arguments) {
  const test::ProgramOutput output = RunProgram("inspect --json " + arguments);
  EXPECT_EQ(output.exit_code, 0) << output.text;
  return json::parse(output.text);
}

// The figures that are published for the releases.
TEST(Inspect, KnowsTheReleasedModels) {
  const json flash = InspectJson("--preset v4-flash");
  EXPECT_EQ(flash["kv_bytes_per_token"], 3514.25);
  EXPECT_EQ(flash["tensors"], 69187);
  EXPECT_EQ(flash["bytes"], 159609485896);
  EXPECT_EQ(flash["parameters"]["total"].get<int64_t>() / 10'000'000, 28433);
  EXPECT_EQ(flash["kv_bytes"]["1048576"]["window"], 3214336);
  EXPECT_EQ(flash["layers"].size(), 44u);
  EXPECT_EQ(flash["layers"][42]["ratio"], 4);
  EXPECT_EQ(flash["layers"][2]["routing"], "hash");
  EXPECT_EQ(flash["by_type"]["I8"]["tensors"], 44 * 256 * 3);
  const json pro = InspectJson("--preset v4-pro");
  EXPECT_EQ(pro["kv_bytes_per_token"], 5031.4375);
  EXPECT_EQ(pro["tensors"], 145116);
  EXPECT_EQ(pro["bytes"], 864704792696);
  const std::string text = RunProgram("inspect --preset v4-pro").text;
  EXPECT_THAT(text, HasSubstr("parameters: 1573.0 B in all, 48.85 B active"));
  EXPECT_THAT(text, HasSubstr("145,116 tensors, 864,704,792,696 bytes"));
  EXPECT_THAT(text, HasSubstr("5031.44 bytes per token"));
  EXPECT_THAT(text, HasSubstr("\n2          window, 1 of 4, best 1024 hash"));
  EXPECT_THAT(text, HasSubstr("\n0-1"));
}

TEST(Inspect, DescribesAModelOnDisk) {
  const json model = InspectJson(GoldenCheckpoint("g4_fp8_experts").string());
  EXPECT_EQ(model["files"], 1);
  EXPECT_EQ(model["layers"][0]["expert_format"], "FP8");
  EXPECT_EQ(model["layers"][1]["linear_format"], "FP8");
  EXPECT_EQ(model["layers"].back()["name"], "mtp.0");
  int64_t bytes = 0;
  for (const json& share : model["by_role"]) bytes += share["bytes"].get<int64_t>();
  EXPECT_EQ(bytes, model["bytes"]);
  EXPECT_EQ(model["config"]["vocab_size"], 144);
}

TEST(Inspect, ReportsUnknownKeys) {
  const TemporaryDirectory directory;
  std::filesystem::copy(GoldenCheckpoint("g1_minimal"), directory.path());
  json config = json::parse(ReadFile(directory.path() / "config.json"));
  config["flux"] = 1;
  WriteFile(directory.path() / "config.json", config.dump());
  EXPECT_EQ(InspectJson(directory.path().string())["unknown_keys"], json::array({"flux"}));
  EXPECT_THAT(RunProgram("inspect " + directory.path().string()).text,
              HasSubstr("note: config.json: the key 'flux' is unknown and ignored\n"));
}

TEST(Inspect, SaysWhatItNeeds) {
  EXPECT_THAT(RunProgram("inspect").text, HasSubstr("by role"));  // the built-in model
  EXPECT_THAT(RunProgram("inspect --preset tiny x").text, HasSubstr("MODEL excludes --preset"));
  EXPECT_EQ(RunProgram("inspect --preset v9").text,
            "toaster: no preset 'v9'; there are v4-flash, v4-pro and tiny\n");
  const test::ProgramOutput nothing = RunProgram("inspect /nothing/here");
  EXPECT_EQ(nothing.exit_code, 1);
  EXPECT_THAT(nothing.text, HasSubstr("toaster: /nothing/here: no such directory"));
  EXPECT_THAT(RunProgram("inspect --help").text,
              AllOf(HasSubstr("--json"), HasSubstr("--preset"), HasSubstr("TOASTER_PRESET")));
}

TEST(Verify, TellsByItsExitCode) {
  const test::ProgramOutput sound = RunProgram("verify " + GoldenCheckpoint("g1_minimal").string());
  EXPECT_EQ(sound.exit_code, 0);
  EXPECT_THAT(sound.text, HasSubstr(": sound; 243 tensors, 2.13 MB in 1 file read in"));
  const TemporaryDirectory directory;
  std::filesystem::copy(GoldenCheckpoint("g1_minimal"), directory.path());
  std::filesystem::resize_file(directory.path() / "model.safetensors", 2000000);
  const test::ProgramOutput cut = RunProgram("verify --threads 2 " + directory.path().string());
  EXPECT_EQ(cut.exit_code, 1);
  EXPECT_THAT(cut.text, AllOf(HasSubstr("but the file has 2000000; it is cut short, download it "
                                        "again\n"),
                              HasSubstr(" problem")));
}

TEST(Synth, MakesModelsThatVerifyAndInspectTake) {
  const TemporaryDirectory directory;
  const std::string out = (directory.path() / "model").string();
  ASSERT_EQ(RunProgram("synth --preset tiny " + out).exit_code, 0);
  EXPECT_EQ(RunProgram("verify " + out).exit_code, 0);
  const json tiny = InspectJson(out);
  EXPECT_EQ(tiny["config"], InspectJson("--preset tiny")["config"]);
  EXPECT_EQ(tiny["bytes"], InspectJson("--preset tiny")["bytes"]);
  EXPECT_EQ(tiny["files"], 1);

  // Another seed gives other weights, the same seed the same.
  const std::string again = (directory.path() / "again").string();
  const std::string other = (directory.path() / "other").string();
  ASSERT_EQ(RunProgram("synth --preset tiny --threads 1 " + again).exit_code, 0);
  ASSERT_EQ(RunProgram("synth --preset tiny --seed 1 " + other).exit_code, 0);
  EXPECT_EQ(ReadFile(out + "/model.safetensors"), ReadFile(again + "/model.safetensors"));
  EXPECT_NE(ReadFile(out + "/model.safetensors"), ReadFile(other + "/model.safetensors"));
}

TEST(Synth, CutsAConfigDown) {
  const TemporaryDirectory directory;
  WriteFile(directory.path() / "c.json",
            ReadFile(GoldenCheckpoint("g2_all_kinds") / "config.json"));
  const std::string config = (directory.path() / "c.json").string();
  const auto make = [&](const std::string& name, const std::string& flags) {
    const std::string out = (directory.path() / name).string();
    const test::ProgramOutput output =
        RunProgram(fmt::format("synth --config {} {} {}", config, flags, out));
    EXPECT_EQ(output.exit_code, 0) << output.text;
    EXPECT_EQ(RunProgram("verify " + out).exit_code, 0);
    return InspectJson(out);
  };
  const json three = make("three", "--layers 3 --experts 2");
  EXPECT_EQ(three["config"]["compress_ratios"], json({0, 4, 128, 0}));
  EXPECT_EQ(three["config"]["num_hash_layers"], 2);
  EXPECT_EQ(three["config"]["n_routed_experts"], 2);
  EXPECT_EQ(three["config"]["num_experts_per_tok"], 2);
  EXPECT_EQ(three["files"], 6) << "embedding, three layers, the rest, the draft block";
  const json one = make("one", "--layers 1 --no-mtp --single-file");
  EXPECT_EQ(one["config"]["compress_ratios"], json::array({0}));
  EXPECT_EQ(one["config"]["num_hash_layers"], 1);
  EXPECT_EQ(one["config"]["num_nextn_predict_layers"], 0);
  EXPECT_EQ(one["files"], 1);
}

TEST(Synth, KeepsWhatIsThere) {
  const TemporaryDirectory directory;
  const std::string out = directory.path().string();
  WriteFile(directory.path() / "thesis.txt", "text");
  const test::ProgramOutput refused = RunProgram("synth --preset tiny " + out);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_EQ(refused.text, "toaster: " + out + ": not empty; choose another place or add --force\n");
  EXPECT_EQ(RunProgram("synth --preset tiny --force " + out).exit_code, 0);
  EXPECT_EQ(ReadFile(directory.path() / "thesis.txt"), "text");
  EXPECT_EQ(RunProgram("synth --preset tiny " + out + "/thesis.txt").text,
            "toaster: " + out + "/thesis.txt: not a directory; choose another place\n");
}

TEST(Synth, SaysWhatItNeeds) {
  EXPECT_EQ(RunProgram("synth /tmp/none").text,
            "toaster: synth takes either --preset or --config\n");
  EXPECT_EQ(RunProgram("synth --preset tiny --layers 9 /tmp/none").text,
            "toaster: --layers is 9; the model has 1 to 4\n");
  EXPECT_THAT(RunProgram("synth --preset tiny --experts 0 /tmp/none").text,
              HasSubstr("'n_routed_experts' is 0"));
}

}  // namespace
}  // namespace toaster
