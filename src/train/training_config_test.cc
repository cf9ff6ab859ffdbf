#include "train/training_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

Json Small() {
  return {
      {"model", (test::GoldenCheckpoint("g1_minimal") / "config.json").string()},
      {"data", "texts"},
      {"output", "run"},
      {"sequence_tokens", 32},
      {"batch_tokens", 64},
      {"stages", {{{"steps", 6}, {"attention", "dense"}, {"quantised", false}}, {{"steps", 4}}}},
      {"learning_rate", {{"peak", 0.01}, {"warmup_steps", 2}, {"decay_steps", 3}}}};
}

TrainingConfig Parse(const Json& json) {
  return TrainingConfig::Parse(json.dump(), "folder", "t.json");
}

TEST(TrainingConfigTest, ReadsWhatIsGivenAndFillsInTheRest) {
  const TrainingConfig config = Parse(Small());
  EXPECT_EQ(config.data, std::vector<std::filesystem::path>{"folder/texts"});
  EXPECT_EQ(config.output, "folder/run");
  EXPECT_EQ(config.steps(), 10);
  EXPECT_EQ(config.pass_tokens, 64);
  EXPECT_TRUE(config.stages[0].dense);
  EXPECT_FALSE(config.stages[0].quantised);
  EXPECT_FALSE(config.stages[1].dense);
  EXPECT_TRUE(config.stages[1].quantised);
  EXPECT_DOUBLE_EQ(config.learning_rate.final, 0.001);
  EXPECT_TRUE(config.optimizer.muon);
  EXPECT_EQ(config.StageOf(5), 0u);
  EXPECT_EQ(config.StageOf(6), 1u);
  EXPECT_EQ(config.StageOf(10), 1u);
  EXPECT_FLOAT_EQ(config.LossesAt(6).mtp, 0.3f);
  EXPECT_FLOAT_EQ(config.LossesAt(7).mtp, 0.1f) << "the learning rate falls from here";
}

TEST(TrainingConfigTest, IdentityIsWhatDecidesTheWeights) {
  const std::string identity = Parse(Small()).Identity();
  Json other = Small();
  other["output"] = "elsewhere";
  other["validation_steps"] = 3;
  EXPECT_EQ(Parse(other).Identity(), identity);
  other = Small();
  other["seed"] = 1;
  EXPECT_NE(Parse(other).Identity(), identity);
  other = Small();
  other["optimizer"]["matrices"] = "adamw";
  EXPECT_NE(Parse(other).Identity(), identity);
}

struct Mistake {
  const char* patch;  // a JSON merge patch
  const char* message;
};

class TrainingConfigMistakes : public ::testing::TestWithParam<Mistake> {};

TEST_P(TrainingConfigMistakes, AreNamed) {
  Json json = Small();
  json.merge_patch(Json::parse(GetParam().patch));
  try {
    Parse(json);
    FAIL() << "accepted " << GetParam().patch;
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
    EXPECT_THAT(error.what(), HasSubstr("t.json"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TrainingConfigMistakes,
    ::testing::Values(
        Mistake{R"({"lerning_rate": 1})", "\"lerning_rate\" is no key"},
        Mistake{R"({"optimizer": {"beta3": 1}})", "\"beta3\" is no key"},
        Mistake{R"({"stages": [{"steps": 0}]})", "\"steps\" has to be a whole number"},
        Mistake{R"({"stages": [{"steps": 1e99}]})", "\"steps\" has to be a whole number"},
        Mistake{R"({"stages": [{"steps": 18446744073709551615}]})", "whole number"},
        Mistake{R"({"stages": []})", "\"stages\" has to be a list"},
        Mistake{R"({"stages": [{"steps": 9, "attention": "full"}]})", "\"sparse\" or \"dense\""},
        Mistake{R"({"learning_rate": {"warmup_steps": 9}})", "warms up and decays for 12 steps"},
        Mistake{R"({"learning_rate": null})", "\"learning_rate\" is missing"},
        Mistake{R"({"learning_rate": {"peak": "high"}})", "\"peak\" has to be a number"},
        Mistake{R"({"model": null})", "\"model\" or \"init\", one of the two"},
        Mistake{R"({"init": "x"})", "\"model\" or \"init\", one of the two"},
        Mistake{R"({"data": null})", "\"data\" is missing"},
        Mistake{R"({"data": [1]})", "\"data\" has to be a path"},
        Mistake{R"({"output": null})", "\"output\" is missing"},
        Mistake{R"({"validation": "v", "validation_share": 0.1})", "cannot both be given"},
        Mistake{R"({"validation_share": 0.9})", "a number from 0 to 0.5"},
        Mistake{R"({"sequence_tokens": 8192})", "more than the model's 4096 positions"},
        Mistake{R"({"pass_tokens": 16})", "a pass holds whole documents"},
        Mistake{R"({"pass_tokens": 128})", "a pass holds whole documents"},
        Mistake{R"({"spike_ratio": 0.5})", "\"spike_ratio\" has to be more than 1"},
        Mistake{R"({"seed": -1})", "\"seed\" has to be a whole number"}));

TEST(TrainingConfigTest, ACheckpointToStartFromHasOneName) {
  Json json = Small();
  json.erase("model");
  const std::filesystem::path init = test::GoldenCheckpoint("g1_minimal");
  json["init"] = init.string();
  const std::string identity = Parse(json).Identity();
  json["init"] = (init / ".." / "checkpoint").string();
  EXPECT_EQ(Parse(json).Identity(), identity);
  json["init_deviation"] = 0.1;
  EXPECT_THROW(Parse(json), Error);
}

TEST(TrainingConfigTest, NamesTheFileThatIsNoJson) {
  try {
    TrainingConfig::Parse("{", "", "t.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("t.json"));
  }
}

}  // namespace
}  // namespace toaster
