#include "engine/prefill_chunk.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

TEST(PrefillChunk, TakesAnEighthOfTheMemory) {
  const Config flash = Config::Preset("v4-flash");
  const int64_t bytes = WorkspaceBytesPerToken(flash);
  // Measured on four layers of Flash: 818 KB for each further token of a chunk.
  EXPECT_NEAR(static_cast<double>(bytes), 818e3, 0.1 * 818e3);
  EXPECT_EQ(PrefillChunk(flash, int64_t{64} << 30), 2048);
  EXPECT_EQ(PrefillChunk(flash, 8 * bytes * 1000), 960);
  EXPECT_EQ(PrefillChunk(flash, 8 * bytes * 10), 64);
  EXPECT_EQ(PrefillChunk(flash, 0), 512);
}

TEST(PrefillChunk, ServingTakesATokenDozenOfEveryExpert) {
  Config config = Config::Preset("v4-flash");
  EXPECT_EQ(ServingChunk(config), 12 * 256 / 6);
  config.n_routed_experts = 8;
  EXPECT_EQ(ServingChunk(config), 64);
}

}  // namespace
}  // namespace toaster
