// plan as a user runs it, and models that run within a plan.

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/program_output.h"
#include "apps/random_model.h"
#include "base/temporary_directory.h"

namespace toaster {
namespace {

using nlohmann::json;
using test::RunProgram;
using testing::HasSubstr;

// Rates are given, so nothing is measured and plans do not change with the machine.
const std::string kMachine = " --disk 3 --read 60 --bf16 500";

json PlanJson(const std::string& arguments) {
  const test::ProgramOutput output = RunProgram("plan --json " + arguments + kMachine);
  EXPECT_EQ(output.exit_code, 0) << output.text;
  return json::parse(output.text);
}

TEST(Plan, MoreMemoryIsNeverSlower) {
  double before = 0;
  for (const char* memory : {"16GB", "32GB", "64GB", "128GB", "192GB"}) {
    const json plan = PlanJson(std::string("--preset v4-flash --memory ") + memory);
    EXPECT_LE(plan["planned_bytes"], plan["memory_bytes"]);
    EXPECT_GT(plan["decode_tokens_per_s"], before) << memory;
    before = plan["decode_tokens_per_s"];
    EXPECT_EQ(plan["streams"], std::string(memory) != "192GB");
    EXPECT_EQ(plan["decode_disk_bytes_per_token"] == 0, std::string(memory) == "192GB");
    for (const json& prompt : plan["prompts"]) EXPECT_GT(prompt["first_token_s"], 0);
  }
  EXPECT_TRUE(PlanJson("--preset v4-pro --memory 512GB")["streams"]);
  EXPECT_FALSE(PlanJson("--preset v4-pro --memory 1TB")["streams"]);
}

TEST(Plan, SaysWhatIsReadFromDisk) {
  const test::ProgramOutput plan = RunProgram("plan --preset v4-flash --memory 32GB" + kMachine);
  EXPECT_EQ(plan.exit_code, 0);
  EXPECT_THAT(plan.text, HasSubstr("of 11,264, the others are read from the files when needed"));
  EXPECT_THAT(plan.text, HasSubstr("hours of decoding a day read"));
  EXPECT_THAT(RunProgram("plan --preset v4-flash --memory 6GB").text, HasSubstr("too little"));
  EXPECT_THAT(RunProgram("plan --preset v4-flash --memory much").text, HasSubstr("is no size"));
}

// With less memory than a model takes, its experts are read when needed, and no bit changes.
TEST(Plan, AModelWithinItsMemoryGivesTheSameAnswer) {
  const std::string model = test::RandomModel();
  const std::string chunk = " --chunk 64";
  const json whole = PlanJson(model + " --memory 1TB" + chunk);
  EXPECT_FALSE(whole["streams"]);
  const std::string less =
      chunk + " --memory " + std::to_string(whole["planned_bytes"].get<int64_t>() - 1);
  const json plan = PlanJson(model + less);
  EXPECT_TRUE(plan["streams"]);
  EXPECT_LT(plan["experts_kept"], plan["experts"]);

  const std::string call =
      "logits " + model + " --tokens 5,9,200,7,44 --steps 5 --digest --threads 2";
  const test::ProgramOutput expected = RunProgram(call), streamed = RunProgram(call + less);
  EXPECT_EQ(streamed.exit_code, 0) << streamed.text;
  EXPECT_THAT(streamed.text, HasSubstr("experts stay in memory"));
  const auto digest = [](const test::ProgramOutput& output) {
    return output.text.substr(output.text.rfind("digest "));
  };
  EXPECT_EQ(digest(streamed), digest(expected));

  // From two copies, and with what was used remembered.
  const test::TemporaryDirectory folder;
  const std::string copy = folder.path() / "copy", history = folder.path() / "history";
  std::filesystem::copy(model, copy, std::filesystem::copy_options::recursive);
  for (int i = 0; i < 2; ++i) {
    const test::ProgramOutput shared =
        RunProgram(call + less + " --model-copy " + copy + " --expert-history " + history);
    EXPECT_EQ(shared.exit_code, 0) << shared.text;
    EXPECT_EQ(digest(shared), digest(expected));
  }
  EXPECT_FALSE(std::filesystem::is_empty(history));
  for (const auto& entry : std::filesystem::directory_iterator(copy)) {
    if (entry.path().extension() == ".safetensors") std::filesystem::resize_file(entry.path(), 100);
  }
  const test::ProgramOutput cut = RunProgram(call + less + " --model-copy " + copy);
  EXPECT_EQ(cut.exit_code, 1);
  EXPECT_THAT(cut.text, HasSubstr("copy it again"));
}

}  // namespace
}  // namespace toaster
