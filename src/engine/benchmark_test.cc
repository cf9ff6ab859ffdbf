#include "engine/benchmark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

BackendOptions OneThread(Profile* profile = nullptr) {
  BackendOptions options;
  options.threads = 1;
  options.profile = profile;
  return options;
}

TEST(BenchmarkTest, AFilledCacheIsLikeAComputedOne) {
  RunningModel model(LoadModel(test::GoldenCheckpoint("g2_all_kinds")), OneThread());
  constexpr int64_t kLength = 150;
  const std::vector<int32_t> tokens(kLength, 3);
  const auto computed = model.model().NewCache(), filled = model.model().NewCache();
  Tensor streams, logits;
  const SequenceChunk chunk{tokens, computed.get()};
  model.model().Forward({&chunk, 1}, streams);
  FillCache(*filled, model.config(), model.backend(), kLength, 1);
  EXPECT_EQ(filled->length(), computed->length());
  EXPECT_EQ(filled->allocated_bytes(), computed->allocated_bytes());
  const SequenceChunk next{std::span(tokens).first(1), filled.get()};
  model.model().Forward({&next, 1}, streams);
  model.model().Logits(streams, logits);
  for (const float logit : logits.values()) ASSERT_TRUE(std::isfinite(logit));
}

TEST(BenchmarkTest, SaysWhatWasPlanned) {
  for (const bool streams : {false, true}) {
    LoadedModel loaded = LoadModel(test::GoldenCheckpoint("g2_all_kinds"));
    MemoryPlan plan;
    plan.streams = streams;
    plan.chunk = 64;
    plan.expert_bytes = LeastExpertBytes(loaded);
    plan.experts_kept = streams ? 1 : SizesOf(loaded).experts;
    Profile profile;
    RunningModel model(std::move(loaded), OneThread(&profile), plan, {});
    BenchmarkOptions options;
    options.prefill = {5};
    options.batches = {1, 2};
    options.repeat = options.steps = 1;
    std::vector<double> planned;
    RunBenchmark(model, profile, options,
                 [&](const BenchmarkRun& run) { planned.push_back(run.planned_tokens_per_s); });
    ASSERT_EQ(planned.size(), 3u);
    // Small files say nothing of a disk's speed, and of two sequences there is no estimate.
    EXPECT_EQ(planned[0] > 0, !streams);
    EXPECT_EQ(planned[1] > 0, !streams);
    EXPECT_EQ(planned[2], 0);
  }
}

TEST(BenchmarkTest, MeasuresEveryDepthWithEveryBatch) {
  Profile profile;
  RunningModel model(LoadModel(test::GoldenCheckpoint("g1_minimal")), OneThread(&profile));
  BenchmarkOptions options;
  options.prefill = {5};
  options.depths = {0, 20};
  options.batches = {1, 3};
  options.repeat = 2;
  options.steps = 2;
  std::vector<BenchmarkRun> runs;
  RunBenchmark(model, profile, options, [&](const BenchmarkRun& run) { runs.push_back(run); });
  ASSERT_EQ(runs.size(), 5u);
  EXPECT_EQ(runs[0].kind, "prefill");
  EXPECT_EQ(runs[0].tokens, 5);
  EXPECT_EQ(runs[4].depth, 20);
  EXPECT_EQ(runs[4].batch, 3);
  EXPECT_EQ(runs[4].tokens, 6);
  for (const BenchmarkRun& run : runs) {
    EXPECT_GT(run.seconds, 0);
    EXPECT_LE(run.least_seconds, run.seconds);
    EXPECT_GE(run.most_seconds, run.seconds);
    EXPECT_GT(run.work.bytes, 0);
  }
  // Three sequences share the dense weights.
  EXPECT_LT(runs[2].work.bytes, 3 * runs[1].work.bytes);
  EXPECT_GT(runs[2].work.bytes, runs[1].work.bytes);
}

TEST(BenchmarkTest, RefusesWhatTheModelCannotHold) {
  Profile profile;
  RunningModel model(LoadModel(test::GoldenCheckpoint("g1_minimal")), OneThread(&profile));
  BenchmarkOptions options;
  options.depths = {model.config().max_position_embeddings};
  EXPECT_THROW(RunBenchmark(model, profile, options, [](const BenchmarkRun&) {}), Error);
}

}  // namespace
}  // namespace toaster
