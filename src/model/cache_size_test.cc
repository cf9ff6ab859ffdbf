#include "model/cache_size.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

Config Flash() { return Config::Preset("v4-flash"); }
Config Pro() { return Config::Preset("v4-pro"); }

TEST(CacheSize, EntriesOfTheReleasedModels) {
  EXPECT_EQ(CacheEntryBytes(Flash()), 584);  // 448 codes, 64 BF16, 7 scales and a pad
  EXPECT_EQ(IndexKeyBytes(Flash()), 68);     // 64 packed bytes, 4 scales
  Config wide = Flash();
  wide.head_dim = 64 + 9 * 64;  // nine scales take sixteen bytes
  EXPECT_EQ(CacheEntryBytes(wide), 9 * 64 + 128 + 16);
  wide.qk_rope_head_dim = 32;
  wide.head_dim = 96;
  wide.index_head_dim = 32;
  EXPECT_EQ(CacheEntryBytes(wide), 64 + 64 + 8);
  EXPECT_EQ(IndexKeyBytes(wide), 17);
}

TEST(CacheSize, SlopeOfTheReleasedModels) {
  EXPECT_EQ(CacheBytesPerToken(Flash()), 3514.25);
  EXPECT_EQ(CacheBytesPerToken(Pro()), 5031.4375);
}

TEST(CacheSize, WindowOfTheReleasedModels) {
  EXPECT_EQ(ModelCacheBytes(Flash(), 1000, false).window, 3214336);
  EXPECT_EQ(ModelCacheBytes(Pro(), 128, false).window, 4559872);
  EXPECT_EQ(ModelCacheBytes(Pro(), 1, false).window, 61 * 584);
  EXPECT_EQ(ModelCacheBytes(Flash(), 1000, true).window, 44 * 128 * 584);
}

// Window and compressed part at the lengths of the published table, whose figures are rounded to
// the digits given here.
TEST(CacheSize, TotalsOfTheReleasedModels) {
  const auto total = [](const Config& config, int64_t tokens) {
    const CacheBytes bytes = ModelCacheBytes(config, tokens, false);
    return static_cast<double>(bytes.compressed + bytes.window);
  };
  EXPECT_NEAR(total(Flash(), 4096) / 1e6, 17.6, 0.05);
  EXPECT_NEAR(total(Pro(), 4096) / 1e6, 25.2, 0.05);
  EXPECT_NEAR(total(Flash(), 131072) / 1e9, 0.464, 0.0005);
  EXPECT_NEAR(total(Pro(), 131072) / 1e9, 0.664, 0.0005);
  EXPECT_NEAR(total(Flash(), 393216) / 1e9, 1.385, 0.0005);
  EXPECT_NEAR(total(Pro(), 393216) / 1e9, 1.983, 0.0005);
  EXPECT_NEAR(total(Flash(), 1000000) / 1e9, 3.517, 0.0005);
  EXPECT_NEAR(total(Pro(), 1000000) / 1e9, 5.036, 0.0005);
  EXPECT_NEAR(total(Flash(), 1048576) / 1e9, 3.688, 0.0005);
  EXPECT_NEAR(total(Pro(), 1048576) / 1e9, 5.280, 0.0005);
  // Exact where the length is a multiple of every ratio.
  EXPECT_EQ(total(Flash(), 1048576), 3514.25 * 1048576 + 3214336);
}

TEST(CacheSize, CountsFinishedEntriesOnly) {
  const Config flash = Flash();
  EXPECT_EQ(BlockCacheBytes(flash, 0, 1000000), (CacheBytes{0, 128 * 584, 0}));
  EXPECT_EQ(BlockCacheBytes(flash, 2, 3).compressed, 0);
  EXPECT_EQ(BlockCacheBytes(flash, 2, 4).compressed, 584 + 68);
  EXPECT_EQ(BlockCacheBytes(flash, 3, 127).compressed, 0);
  EXPECT_EQ(BlockCacheBytes(flash, 3, 128).compressed, 584);
}

// Float values and scores. Ratio 128: 128 rows of 512. Ratio 4: 4 rows of 1024 pending and 4 of 512
// from the previous block, and the same for the indexer at a quarter of the width. The reference
// code keeps 8 full rows instead: 12,206,080 bytes for Flash.
TEST(CacheSize, TailsAreLean) {
  const Config flash = Flash();
  EXPECT_EQ(BlockCacheBytes(flash, 3, 1).tails, 2 * 4 * 128 * 512);
  EXPECT_EQ(BlockCacheBytes(flash, 2, 1).tails,
            2 * 4 * (4 * 1024 + 4 * 512) + 2 * 4 * (4 * 256 + 4 * 128));
  const int64_t lean = ModelCacheBytes(flash, 0, false).tails;
  const int64_t spared = 21 * 2 * 4 * (4 * 512 + 4 * 128);
  EXPECT_EQ(lean + spared, 12206080);
  EXPECT_EQ(ModelCacheBytes(flash, 0, false).total(), lean);
}

}  // namespace
}  // namespace toaster
