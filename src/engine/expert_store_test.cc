#include "engine/expert_store.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <set>
#include <thread>

#include "base/digest.h"
#include "base/random.h"
#include "base/temporary_directory.h"
#include "checkpoint/model_copy.h"
#include "checkpoint/test_files.h"
#include "engine/running_model.h"

namespace toaster {
namespace {

using testing::HasSubstr;

std::vector<int32_t> Tokens(const Config& config, int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(Philox(3, static_cast<uint64_t>(i), 0)[0] %
                                          static_cast<uint64_t>(config.vocab_size)));
  }
  return tokens;
}

// The digest of all logits of a prompt, in chunks.
std::string RunPrompt(RunningModel& running, int64_t chunk, int64_t length = 70) {
  Model& model = running.model();
  const std::vector<int32_t> tokens = Tokens(running.config(), length);
  const auto cache = model.NewCache();
  Digest digest;
  Tensor streams, logits;
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(chunk)) {
    const size_t count = std::min(static_cast<size_t>(chunk), tokens.size() - begin);
    const SequenceChunk part{std::span(tokens).subspan(begin, count), cache.get()};
    model.Forward({&part, 1}, streams);
    model.Logits(streams, logits);
    digest.AddValues(logits.values());
  }
  return digest.Hex();
}

// A plan with room for `experts`; 0: as few as a store takes.
MemoryPlan PlanFor(const LoadedModel& model, int64_t experts = 0) {
  MemoryPlan plan;
  plan.streams = true;
  plan.expert_bytes = std::max(LeastExpertBytes(model), experts * SizesOf(model).expert_bytes);
  return plan;
}

std::unique_ptr<RunningModel> Start(const std::filesystem::path& checkpoint,
                                    const BackendOptions& backend, WeightOptions weights,
                                    int64_t experts = 0) {
  LoadedModel model = LoadModel(checkpoint);
  const MemoryPlan plan = PlanFor(model, experts);
  return std::make_unique<RunningModel>(std::move(model), backend, plan, std::move(weights));
}

const BackendOptions kCpu = {"cpu", "", 2, Numerics::kOfficial};

class ExpertStoreTest : public testing::TestWithParam<std::string> {};

TEST_P(ExpertStoreTest, GivesTheAnswersOfMappedFiles) {
  const std::filesystem::path checkpoint = test::GoldenCheckpoint(GetParam());
  RunningModel mapped(LoadModel(checkpoint), kCpu);
  for (const int64_t chunk : {70, 9, 1}) {
    const std::string expected = RunPrompt(mapped, chunk);
    for (const DirectReadMethod method : {DirectReadMethod::kRing, DirectReadMethod::kThreads}) {
      for (const bool forecasts : {true, false}) {
        for (const char* backend : {"cpu", "reference"}) {
          if (backend == std::string("reference") && chunk != 9) continue;  // slow
          WeightOptions weights;
          weights.forecasts = forecasts;
          weights.reads.method = method;
          const auto running =
              Start(checkpoint, {backend, "", 2, Numerics::kOfficial}, std::move(weights));
          EXPECT_EQ(RunPrompt(*running, chunk), expected)
              << "chunks of " << chunk << ", forecasts " << forecasts << ", " << backend;
          const ExpertStoreFigures figures = running->expert_store()->figures();
          EXPECT_LE(figures.missed, figures.used);
          EXPECT_GT(figures.needed_bytes, 0);
          EXPECT_LE(figures.needed_bytes, figures.read_bytes);
          EXPECT_EQ(figures.read_for_forecast > 0, forecasts);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, ExpertStoreTest,
                         testing::Values("g1_minimal", "g2_all_kinds", "g3_wide_two_shards",
                                         "g4_fp8_experts"),
                         [](const auto& test) { return test.param; });

class ExpertStoreFaultsTest : public testing::Test {
 protected:
  const std::filesystem::path checkpoint_ = test::GoldenCheckpoint("g2_all_kinds");
};

TEST_F(ExpertStoreFaultsTest, WhatIsKeptIsNotReadAgain) {
  LoadedModel model = LoadModel(checkpoint_);
  const WeightSizes sizes = SizesOf(model);
  const auto running = Start(checkpoint_, kCpu, {}, sizes.experts);
  EXPECT_EQ(running->expert_store()->capacity(), sizes.experts);
  const std::string first = RunPrompt(*running, 50);
  const int64_t read = running->expert_store()->figures().read_bytes;
  EXPECT_LE(read, sizes.experts * sizes.expert_bytes);
  EXPECT_EQ(RunPrompt(*running, 50), first);
  EXPECT_EQ(running->expert_store()->figures().read_bytes, read);
}

TEST_F(ExpertStoreFaultsTest, PassesOverAllExpertsLeaveThoseThatStay) {
  const Config config = LoadModel(checkpoint_).config;
  const int64_t blocks = config.num_hidden_layers, all = blocks * config.n_routed_experts;
  const int64_t capacity = all / 2;
  const auto running = Start(checkpoint_, kCpu, {}, capacity);
  ASSERT_EQ(running->expert_store()->capacity(), capacity);
  const std::string first = RunPrompt(*running, 70);
  const ExpertStoreFigures before = running->expert_store()->figures();
  EXPECT_EQ(RunPrompt(*running, 70), first);
  const ExpertStoreFigures after = running->expert_store()->figures();
  const int64_t stay = capacity - ExpertStore::MostPassing(config, capacity);
  // Those that no token chose may be among those that stay.
  ASSERT_GT(before.used, all - stay);
  EXPECT_LE(after.needed_bytes - before.needed_bytes,
            (all - stay) * SizesOf(LoadModel(checkpoint_)).expert_bytes);
  RunningModel mapped(LoadModel(checkpoint_), kCpu);
  EXPECT_EQ(first, RunPrompt(mapped, 70));
}

TEST_F(ExpertStoreFaultsTest, AReadThatFailsOnceShowsNothing) {
  RunningModel mapped(LoadModel(checkpoint_), kCpu);
  WeightOptions weights;
  weights.reads.fault = [](int64_t, bool again) { return again ? 0 : EIO; };
  EXPECT_EQ(RunPrompt(*Start(checkpoint_, kCpu, weights), 40), RunPrompt(mapped, 40));
}

TEST_F(ExpertStoreFaultsTest, AReadThatFailsTwiceFailsTheStepAndNamesTheShard) {
  RunningModel mapped(LoadModel(checkpoint_), kCpu);
  for (const bool forecasts : {true, false}) {
    std::atomic<bool> broken = false;
    WeightOptions weights;
    weights.forecasts = forecasts;
    weights.reads.fault = [&](int64_t, bool) { return broken ? EIO : 0; };
    const auto running = Start(checkpoint_, kCpu, weights);
    broken = true;
    const std::string message = test::MessageOf([&] { RunPrompt(*running, 40); });
    EXPECT_THAT(message, HasSubstr("model.safetensors"));
    EXPECT_THAT(message, HasSubstr("offset"));
    EXPECT_THAT(message, HasSubstr("check the disk"));
    broken = false;
    EXPECT_EQ(RunPrompt(*running, 40), RunPrompt(mapped, 40)) << "the next request goes well";
  }
}

TEST_F(ExpertStoreFaultsTest, ADamagedScaleIsNamedWhenItsExpertIsRead) {
  test::TemporaryDirectory directory;
  const std::filesystem::path copy = directory.path() / "model";
  std::filesystem::copy(checkpoint_, copy);
  {
    const LoadedModel model = LoadModel(copy);
    const Checkpoint::Place place = model.checkpoint.Find("layers.1.ffn.experts.0.w2.scale");
    std::fstream file(place.shard->origin(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(place.tensor->offset);
    file.put('\xff');
  }
  const auto running = Start(copy, kCpu, {});
  const std::string message = test::MessageOf([&] { RunPrompt(*running, 40); });
  EXPECT_THAT(message, HasSubstr("layers.1.ffn.experts.0.w2"));
  EXPECT_THAT(message, HasSubstr("NaN"));
}

TEST_F(ExpertStoreFaultsTest, TooLittleMemoryIsRefusedWithTheRemedy) {
  const LoadedModel model = LoadModel(checkpoint_);
  EXPECT_THAT(test::MessageOf([&] {
                ExpertStoreOptions options;
                options.memory_bytes = LeastExpertBytes(model) - 1;
                ExpertStore store(model, options);
              }),
              HasSubstr("--memory"));
}

TEST_F(ExpertStoreFaultsTest, AnEarlierRunsExpertsAreReadAtTheStart) {
  test::TemporaryDirectory directory;
  LoadedModel model = LoadModel(checkpoint_);
  const int64_t experts = SizesOf(model).experts;
  std::string expected;
  int64_t first_misses = 0;
  for (const bool again : {false, true}) {
    WeightOptions weights;
    weights.forecasts = false;  // every miss counts
    weights.history = directory.path() / "uses";
    weights.note = [](const std::string& note) { ADD_FAILURE() << note; };
    const auto running = Start(checkpoint_, kCpu, weights, experts);
    const ExpertStore& store = *running->expert_store();
    // Each expert of the first run was missed once, and there is room for all.
    while (again && store.figures().remembered < first_misses) std::this_thread::yield();
    const std::string digest = RunPrompt(*running, 50);
    if (again) {
      EXPECT_EQ(digest, expected);
      EXPECT_EQ(store.figures().remembered, first_misses);
      EXPECT_EQ(store.figures().missed, 0);
    } else {
      expected = digest;
      first_misses = store.figures().missed;
      EXPECT_GT(first_misses, 0);
      EXPECT_EQ(store.figures().remembered, 0);
    }
  }
  // With little memory only as many as fit.
  WeightOptions weights;
  weights.history = directory.path() / "uses";
  const auto running = Start(checkpoint_, kCpu, weights);
  EXPECT_EQ(RunPrompt(*running, 50), expected);
  EXPECT_LE(running->expert_store()->figures().remembered, running->expert_store()->capacity());
}

TEST_F(ExpertStoreFaultsTest, ASecondCopyIsReadToo) {
  RunningModel mapped(LoadModel(checkpoint_), kCpu);
  test::TemporaryDirectory directory;
  const std::filesystem::path copy = directory.path() / "copy";
  std::filesystem::copy(checkpoint_, copy);
  LoadedModel model = LoadModel(checkpoint_);
  WeightOptions weights;
  weights.copies.push_back(FindModelCopy(model.checkpoint, copy));
  const auto running = Start(checkpoint_, kCpu, weights);
  EXPECT_EQ(RunPrompt(*running, 40), RunPrompt(mapped, 40));
  const ExpertStoreFigures figures = running->expert_store()->figures();
  ASSERT_EQ(figures.copy_bytes.size(), 2u);
  EXPECT_GT(figures.copy_bytes[0], 0);
  EXPECT_GT(figures.copy_bytes[1], 0);
}

// The reads of an expert are as few as its tensors' places allow.
TEST_F(ExpertStoreFaultsTest, NeighboursAreReadInOneGo) {
  // An expert cut in two by a shard's end takes two reads, all others one.
  const LoadedModel model = LoadModel(test::GoldenCheckpoint("g3_wide_two_shards"));
  int64_t cut = 0;
  for (const ExpertPlace& place : FindExperts(model)) {
    EXPECT_LE(place.ranges.size(), 2u);
    if (place.ranges.size() < 2) continue;
    EXPECT_NE(place.ranges[0].file, place.ranges[1].file);
    ++cut;
  }
  EXPECT_LE(cut, 1);
}

}  // namespace
}  // namespace toaster
