#include "engine/memory_plan.h"

#include <gmock/gmock.h>

#include "checkpoint/test_files.h"
#include "engine/prefill_chunk.h"
#include "model/cache_size.h"

namespace toaster {
namespace {

using testing::HasSubstr;

constexpr int64_t kGiga = 1'000'000'000;

TEST(MemoryPlanTest, SizesOfReleasedModels) {
  // Flash: 284 B parameters, nearly all of them in FP4 experts of 3 x 4096 x 2048 numbers with a
  // scale byte per 32.
  const WeightSizes flash = SizesOf(Config::Preset("v4-flash"));
  EXPECT_EQ(flash.experts, 44 * 256);
  EXPECT_EQ(flash.expert_bytes, 3 * 4096 * 2048 / 2 * 17 / 16);
  EXPECT_GT(flash.dense_bytes, 5 * kGiga);
  EXPECT_LT(flash.dense_bytes, 12 * kGiga);
}

TEST(MemoryPlanTest, EverythingStaysMappedWhereItFits) {
  const Config config = Config::Preset("v4-flash");
  const MemoryPlan plan = PlanMemory(config, SizesOf(config), {.memory = 192 * kGiga});
  EXPECT_FALSE(plan.streams);
  EXPECT_EQ(plan.experts_kept, 44 * 256);
  EXPECT_LE(plan.total(), plan.memory);
}

TEST(MemoryPlanTest, ExpertsGetWhatIsLeft) {
  const Config config = Config::Preset("v4-flash");
  const WeightSizes sizes = SizesOf(config);
  int64_t kept = 0;
  for (const int64_t memory : {16 * kGiga, 32 * kGiga, 64 * kGiga, 128 * kGiga}) {
    const MemoryPlan plan = PlanMemory(config, sizes, {.memory = memory});
    EXPECT_TRUE(plan.streams);
    EXPECT_GT(plan.experts_kept, kept);
    kept = plan.experts_kept;
    EXPECT_LE(plan.total(), memory);
    EXPECT_GT(plan.total(), memory - 2 * sizes.expert_bytes) << "nothing is left lying";
    EXPECT_EQ(plan.cache_bytes, ModelCacheBytes(config, plan.context, true).total());
    EXPECT_EQ(plan.workspace_bytes, plan.chunk * WorkspaceBytesPerToken(config));
  }
}

TEST(MemoryPlanTest, WhatIsAskedForIsKept) {
  const Config config = Config::Preset("v4-flash");
  const MemoryPlan plan = PlanMemory(config, SizesOf(config),
                                     {.memory = 64 * kGiga,
                                      .context = 1'000'000,
                                      .sequences = 2,
                                      .prefix_bytes = 3 * kGiga,
                                      .chunk = 128});
  EXPECT_EQ(plan.context, 1'000'000);
  EXPECT_EQ(plan.cache_bytes, 2 * ModelCacheBytes(config, 1'000'000, true).total());
  EXPECT_EQ(plan.prefix_bytes, 3 * kGiga);
  EXPECT_EQ(plan.chunk, 128);
  EXPECT_LE(plan.total(), 64 * kGiga);
}

TEST(MemoryPlanTest, TooLittleIsRefusedAndTheLeastIsNamed) {
  const Config config = Config::Preset("v4-flash");
  const WeightSizes sizes = SizesOf(config);
  const std::string message =
      test::MessageOf([&] { PlanMemory(config, sizes, {.memory = 8 * kGiga}); });
  EXPECT_THAT(message, HasSubstr("8.00 GB of memory are too little"));
  EXPECT_THAT(message, HasSubstr("--memory"));
  const auto streams = [&](int64_t memory) {
    try {
      return PlanMemory(config, sizes, {.memory = memory}).streams;
    } catch (const Error&) {
      return false;
    }
  };
  // The least that does: found by halving, it is enough and a byte less is not.
  int64_t too_little = 0, enough = 32 * kGiga;
  while (enough - too_little > 1) {
    const int64_t middle = (too_little + enough) / 2;
    (streams(middle) ? enough : too_little) = middle;
  }
  const MemoryPlan plan = PlanMemory(config, sizes, {.memory = enough});
  EXPECT_EQ(plan.chunk, 64);
  EXPECT_GE(plan.experts_kept, 2 * config.num_experts_per_tok);
}

TEST(MemoryPlanTest, NothingIsBoundedWhereNothingIsKnown) {
  const Config config = Config::Preset("v4-pro");
  const MemoryPlan plan = PlanMemory(config, SizesOf(config), {});
  EXPECT_FALSE(plan.streams);
  EXPECT_EQ(plan.memory, 0);
  const MemoryPlan in_memory =
      PlanMemory(config, SizesOf(config), {.available = kGiga, .in_files = false});
  EXPECT_FALSE(in_memory.streams);
}

}  // namespace
}  // namespace toaster
