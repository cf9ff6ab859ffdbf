// Runs of training on the smallest recorded shape: what is interrupted, damaged or computed with
// other threads comes out the same, bit for bit.

#include "train/trainer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <bit>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/random.h"
#include "base/temporary_directory.h"
#include "checkpoint/load_weights.h"
#include "checkpoint/test_files.h"
#include "train/training_log.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    config_.model = Config::Load(test::GoldenCheckpoint("g1_minimal") / "config.json");
    config_.model.num_hidden_layers = 2;
    config_.model.compress_ratios = {0, 4, 0};
    config_.model.n_routed_experts = 3;
    config_.model.Validate("the test's model");
    config_.output = folder_.path() / "run";
    config_.sequence_tokens = 24;
    config_.batch_tokens = config_.pass_tokens = 48;
    config_.stages = {{3, true, false, false}, {2, false, true, true}, {3, false, false, true}};
    config_.learning_rate = {0.02, 0.002, 1, 8, 3};
    config_.checkpoint_steps = 2;
    config_.validation_steps = 4;
    for (uint64_t i = 0; i < 30; ++i) {
      std::vector<int32_t> tokens;
      for (uint64_t t = 0; t < 8 + i % 16; ++t)
        tokens.push_back(static_cast<int32_t>(Philox(1, i, t)[0] % 100));
      data_.Add(tokens, {});
    }
    validation_ = data_.SetAside(0.2);
  }

  std::unique_ptr<Trainer> Make(const TrainingConfig& config, int threads = 1) {
    notes_.clear();
    reports_.clear();
    BackendOptions options;
    options.threads = threads;
    return std::make_unique<Trainer>(
        config, data_, validation_, options,
        TrainingEvents{[this](const StepReport& report) { reports_.push_back(report); },
                       [this](const std::string& note) { notes_.push_back(note); },
                       [this] { return static_cast<int64_t>(reports_.size()) == stop_after_; }});
  }
  TrainingConfig In(const std::string& folder) const {
    TrainingConfig config = config_;
    config.output = folder_.path() / folder;
    return config;
  }
  std::vector<uint32_t> Bits(const Trainer& trainer) {
    std::vector<uint32_t> bits;
    for (const float x : trainer.weights().masters().values())
      bits.push_back(std::bit_cast<uint32_t>(x));
    return bits;
  }
  std::vector<uint32_t> BitsOfWholeRun(const TrainingConfig& config, int threads = 1) {
    stop_after_ = -1;
    const auto trainer = Make(config, threads);
    EXPECT_TRUE(trainer->Run());
    return Bits(*trainer);
  }

  const test::TemporaryDirectory folder_;
  TrainingConfig config_;
  TrainingData data_, validation_;
  std::vector<std::string> notes_;
  std::vector<StepReport> reports_;
  int64_t stop_after_ = -1;
};

TEST_F(TrainerTest, AnInterruptedRunWithOtherThreadsEndsWhereAWholeOneDoes) {
  const std::vector<uint32_t> whole = BitsOfWholeRun(In("whole"));
  ASSERT_EQ(reports_.size(), 8u);
  EXPECT_TRUE(reports_[3].validation.has_value());
  EXPECT_LT(*reports_[7].validation, std::log(128.0) + 1);
  std::vector<double> losses;
  for (const StepReport& report : reports_) losses.push_back(report.losses.total);
  const TrainingConfig config = In("parts");
  std::vector<double> got;
  int threads = 3;
  for (const int64_t steps : {1, 3, 4}) {
    stop_after_ = steps;
    const auto trainer = Make(config, threads--);
    trainer->Run();
    for (const StepReport& report : reports_) got.push_back(report.losses.total);
    if (got.size() == 8) {
      EXPECT_EQ(Bits(*trainer), whole);
    }
  }
  EXPECT_EQ(got, losses);
  EXPECT_THAT(notes_, ElementsAre("goes on after step 4"));
}

TEST_F(TrainerTest, TheIndexersStageLeavesTheRestAlone) {
  stop_after_ = 3;
  const TrainingConfig config = In("run");
  auto trainer = Make(config);
  trainer->Run();
  const std::vector<uint32_t> before = Bits(*trainer);
  stop_after_ = 2;
  trainer = Make(config);
  trainer->Run();
  const std::vector<uint32_t> after = Bits(*trainer);
  bool any = false;
  for (const ParameterArrays::Part& part : trainer->weights().masters().parts()) {
    const auto begin = static_cast<size_t>(part.begin), size = static_cast<size_t>(part.size);
    const bool same = std::equal(before.begin() + static_cast<ptrdiff_t>(begin),
                                 before.begin() + static_cast<ptrdiff_t>(begin + size),
                                 after.begin() + static_cast<ptrdiff_t>(begin));
    const bool indexer = part.spec.name.find(".indexer.") != std::string::npos;
    any = any || indexer;
    if (!indexer) {
      EXPECT_TRUE(same) << part.spec.name;
    }
    if (indexer && part.spec.columns > 0) {
      EXPECT_FALSE(same) << part.spec.name;
    }
  }
  EXPECT_TRUE(any);
}

// The losses of a pass are means over its own targets and count by their share of the batch's.
TEST_F(TrainerTest, SmallPassesAddUpToTheBatch) {
  TrainingConfig config = In("one");
  config.losses.index = 0;  // counts by rows, not exactly
  config.stages = {{1, false, false, true}};
  config.learning_rate = {0.02, 0.002, 0, 1, 0};
  auto trainer = Make(config);
  trainer->Run();
  const StepReport whole = reports_[0];
  config.pass_tokens = 24;
  config.output = folder_.path() / "two";
  trainer = Make(config);
  trainer->Run();
  const StepReport parts = reports_[0];
  EXPECT_EQ(parts.tokens, whole.tokens);
  EXPECT_EQ(parts.losses.loads, whole.losses.loads);
  // Sums of floats in another order: a few thousand roundings of 2^-24, taken with a wide margin.
  EXPECT_NEAR(parts.losses.ce, whole.losses.ce, 1e-5 * whole.losses.ce);
  EXPECT_NEAR(parts.losses.mtp, whole.losses.mtp, 1e-5 * whole.losses.mtp);
  // The draft block has a row less in every document, so its share is not quite that of the rows.
  EXPECT_NEAR(parts.losses.balance, whole.losses.balance, 1e-3 * whole.losses.balance);
  EXPECT_NEAR(parts.gradient_norm, whole.gradient_norm, 1e-3 * whole.gradient_norm);
}

TEST_F(TrainerTest, ADamagedCheckpointIsNamedAndPassedOver) {
  const std::vector<uint32_t> whole = BitsOfWholeRun(In("whole"));
  const TrainingConfig config = In("damaged");
  stop_after_ = 5;
  Make(config)->Run();
  const fs::path folder = config.output / "checkpoints";
  ASSERT_THAT(TrainingCheckpoints(folder), ElementsAre(2, 4, 5));
  const fs::path file = TrainingCheckpointFile(folder, 5);
  const auto size = static_cast<int64_t>(fs::file_size(file));
  const std::string sound = test::ReadFile(file);
  // The header, the numbers, the place in the data, the checksum, and cut short.
  const auto position = static_cast<int64_t>(sound.find("\"next_document\":") + 16);
  for (const int64_t place : {int64_t{20}, size / 2, position, size - 1, int64_t{-1}}) {
    std::string damaged = sound;
    if (place < 0) {
      damaged.resize(damaged.size() / 3);
    } else {
      damaged[static_cast<size_t>(place)] =
          static_cast<char>(damaged[static_cast<size_t>(place)] ^ 8);
    }
    test::WriteFile(file, damaged);
    const auto trainer = Make(config);
    EXPECT_EQ(trainer->step(), 4) << place;
    ASSERT_EQ(notes_.size(), 2u) << place;
    EXPECT_THAT(notes_[0], HasSubstr("step-00000005.safetensors")) << place;
  }
  EXPECT_EQ(BitsOfWholeRun(config), whole);
  EXPECT_THAT(TrainingCheckpoints(folder), ElementsAre(6, 8));
}

TEST_F(TrainerTest, AnotherConfigurationDoesNotGoOn) {
  TrainingConfig config = In("run");
  stop_after_ = 1;
  Make(config)->Run();
  config.seed = 7;
  try {
    Make(config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("another configuration"));
  }
}

TEST_F(TrainerTest, AFullDiskKeepsTheCheckpointsBefore) {
  const TrainingConfig config = In("full");
  stop_after_ = 2;
  Make(config)->Run();
  stop_after_ = -1;
  const auto trainer = Make(config);
  // A limit on the size of files stands for the end of the disk.
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const struct rlimit small = {1 << 20, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  try {
    trainer->Run();
    ADD_FAILURE() << "wrote beyond the limit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("step-00000004.safetensors"));
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(Make(config)->step(), 2);
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(config.output / "checkpoints"))
    left.push_back(entry.path().filename().string());
  EXPECT_THAT(left, ::testing::UnorderedElementsAre("step-00000000.safetensors",
                                                    "step-00000002.safetensors"));
}

// With an absurdly small ratio every rise of the loss is a spike.
TEST_F(TrainerTest, ASpikeGoesBackPastTheDataTheSameWayAfterAnInterruption) {
  TrainingConfig config = In("whole");
  config.stages = {{8, false, false, true}};
  config.learning_rate = {0.02, 0.002, 1, 8, 3};
  config.spike_ratio = 1.01;
  const std::vector<uint32_t> whole = BitsOfWholeRun(config);
  ASSERT_FALSE(notes_.empty()) << "no spike: choose a smaller ratio";
  EXPECT_THAT(notes_[0], HasSubstr("past the data since"));
  config.output = folder_.path() / "parts";
  for (int part = 0; part < 20; ++part) {
    stop_after_ = 3;
    const auto trainer = Make(config);
    if (trainer->Run()) {
      EXPECT_EQ(Bits(*trainer), whole);
      return;
    }
  }
  FAIL() << "never came to the end";
}

TEST_F(TrainerTest, ASpikeGoesBackBehindADamagedCheckpoint) {
  TrainingConfig config = In("sound");
  config.stages = {{8, false, false, true}};
  config.learning_rate = {0.02, 0.002, 1, 8, 3};
  config.checkpoint_steps = 1;
  config.spike_ratio = 1.025;
  BitsOfWholeRun(config);
  int spike = 0;
  ASSERT_EQ(std::sscanf(notes_.at(0).c_str(), "the loss of step %d", &spike), 1) << notes_[0];
  const int64_t last = spike - 1;  // checkpoint before it
  ASSERT_GT(last, 0) << "there must be two checkpoints to go back to";
  config.output = folder_.path() / "damaged";
  const fs::path folder = config.output / "checkpoints";
  bool damaged = false;
  std::vector<std::string> notes;
  Trainer trainer(
      config, data_, validation_, BackendOptions{},
      {[](const StepReport&) {}, [&](const std::string& note) { notes.push_back(note); },
       [&] {
         const std::vector<int64_t> steps = TrainingCheckpoints(folder);
         if (damaged || steps.back() != last) return false;
         const fs::path file = TrainingCheckpointFile(folder, last);
         std::string content = test::ReadFile(file);
         content[content.size() / 2] = static_cast<char>(content[content.size() / 2] ^ 8);
         test::WriteFile(file, content);
         damaged = true;
         return false;
       }});
  EXPECT_TRUE(trainer.Run());
  ASSERT_GE(notes.size(), 2u);
  EXPECT_THAT(notes[0], HasSubstr(TrainingCheckpointFile(folder, last).filename().string()));
  EXPECT_THAT(notes[1], HasSubstr(fmt::format("back to step {},", last - 1)));
}

TEST_F(TrainerTest, SpikesWithoutEndAreAnError) {
  TrainingConfig config = In("run");
  config.spike_ratio = 1 + 1e-12;
  config.stages = {{200, false, false, true}};
  config.learning_rate = {3, 3, 0, 200, 0};
  config.gradient_clip = 0;
  try {
    BitsOfWholeRun(config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("lower learning_rate.peak"));
  }
}

TEST_F(TrainerTest, AnExportIsAModelToStartFrom) {
  TrainingConfig config = In("run");
  stop_after_ = -1;
  auto trainer = Make(config);
  trainer->Run();
  const double validation = trainer->Validate();
  trainer->Export("", folder_.path() / "model");
  config = In("more");
  config.init = folder_.path() / "model";
  config.model = Config::Load(config.init / "config.json");
  config.stages = {{1, false, false, true}};
  config.learning_rate = {0, 0, 0, 1, 0};  // changes nothing
  trainer = Make(config);
  EXPECT_EQ(trainer->Validate(), validation);
}

TEST(TrainingLogTest, DropsWhatIsDoneAgainAndHalfLines) {
  const test::TemporaryDirectory folder;
  const fs::path file = folder.path() / "log.jsonl";
  StepReport report;
  {
    TrainingLog log(file, 0);
    for (report.step = 1; report.step <= 5; ++report.step) log.Append(report);
  }
  std::ofstream(file, std::ios::app) << "{\"step\": 6, \"lo";
  TrainingLog log(file, 3);
  report.step = 4;
  log.Append(report);
  std::vector<std::string> lines = TrainingLog::Lines(file);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_THAT(lines[3], HasSubstr("\"step\":4,"));
  report.step = 2;  // after a return to an earlier step
  log.Append(report);
  lines = TrainingLog::Lines(file);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[1], HasSubstr("\"step\":2,"));
}

TEST(TrainingFlopsTest, CountsActiveWeightsSixTimes) {
  Config config = Config::Load(test::GoldenCheckpoint("g1_minimal") / "config.json");
  const double with_draft = TrainingFlopsPerToken(config);
  config.num_nextn_predict_layers = 0;
  config.compress_ratios.pop_back();
  const double without = TrainingFlopsPerToken(config);
  EXPECT_GT(with_draft, without);
  config.vocab_size += 10;
  EXPECT_DOUBLE_EQ(TrainingFlopsPerToken(config) - without,
                   6.0 * 10 * static_cast<double>(config.hidden_size));
}

}  // namespace
}  // namespace toaster
