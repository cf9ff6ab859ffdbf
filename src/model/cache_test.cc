#include "model/cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "backend/registry.h"
#include "base/error.h"
#include "base/memory_use.h"
#include "model/cache_size.h"

namespace toaster {
namespace {

// Appends the rows that `tokens` tokens produce, without computing them: every byte is written.
void Grow(const Config& config, int64_t tokens, SequenceCache& cache) {
  const auto append = [](PagedRows& rows) {
    std::memset(rows.Append(), 1, static_cast<size_t>(rows.row_bytes()));
  };
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const int64_t ratio = config.ratio(i);
    if (ratio == 0) continue;
    for (int64_t row = cache.block(i).entries.size(); row < tokens / ratio; ++row)
      append(cache.block(i).entries);
    if (ratio != 4) continue;
    for (int64_t row = cache.block(i).keys.size(); row < tokens / ratio; ++row)
      append(cache.block(i).keys);
  }
}

// At whole pages (multiples of 128 tokens) the allocated bytes are the formula's; in between at
// most a page per layer more.
TEST(CacheTest, AllocatesWhatTheFormulaSays) {
  for (const char* preset : {"v4-flash", "v4-pro", "tiny"}) {
    Config config = Config::Preset(preset);
    config.num_nextn_predict_layers = 0;
    const auto backend = CreateBackend({"reference", "", 0, Numerics::kOfficial});
    SequenceCache cache(config, *backend);
    for (const int64_t tokens : {0, 1, 127, 128, 129, 1024, 4096}) {
      Grow(config, tokens, cache);
      CacheBytes formula = ModelCacheBytes(config, tokens, false);
      formula.window = ModelCacheBytes(config, config.sliding_window, false)
                           .window;  // the ring is whole from the start
      if (tokens % 128 == 0) {
        EXPECT_EQ(cache.allocated_bytes(), formula.total())
            << preset << ", " << tokens << " tokens";
      } else {
        const int64_t page = ModelCacheBytes(config, 128, false).compressed;
        EXPECT_GE(cache.allocated_bytes(), formula.total())
            << preset << ", " << tokens << " tokens";
        EXPECT_LE(cache.allocated_bytes(), formula.total() + page)
            << preset << ", " << tokens << " tokens";
      }
    }
  }
}

// The resident memory, not what the cache says of itself: within 1 % of the formula and 8 MiB,
// which the allocator may keep. DeepSeek V3.2 needs 48,068 bytes a token.
TEST(CacheLongTest, AMillionTokensAreResidentAsTheFormulaSays) {
  for (const auto& [preset, times_less] : {std::pair("v4-flash", 13.7), std::pair("v4-pro", 9.5)}) {
    Config config = Config::Preset(preset);
    config.num_nextn_predict_layers = 0;
    const auto backend = CreateBackend({"reference", "", 0, Numerics::kOfficial});
    const int64_t before = CurrentMemoryUse().anonymous;
    SequenceCache cache(config, *backend);
    for (const int64_t tokens : {131072, 1000000}) {
      Grow(config, tokens, cache);
      const auto resident = static_cast<double>(CurrentMemoryUse().anonymous - before);
      const auto formula = static_cast<double>(ModelCacheBytes(config, tokens, false).total());
      EXPECT_NEAR(resident, formula, 0.01 * formula + (8 << 20)) << preset << ", " << tokens;
    }
    EXPECT_NEAR(48068 / CacheBytesPerToken(config), times_less, 0.06) << preset;
  }
}

TEST(CacheTest, GrowthMovesNoRow) {
  PagedRows rows(584, 32);
  rows.Append()[0] = 42;
  const uint8_t* first = rows.Row(0);
  for (int i = 0; i < 1000; ++i) rows.Append();
  EXPECT_EQ(rows.Row(0), first);
  EXPECT_EQ(rows.Row(0)[0], 42);
  EXPECT_EQ(rows.RunLength(0), 32);
  EXPECT_EQ(rows.RunLength(31), 1);
  EXPECT_EQ(rows.RunLength(1000), 1);  // the last of 1,001 rows
}

TEST(CacheTest, TruncatingGivesPagesBack) {
  PagedRows rows(8, 4);
  for (int i = 0; i < 10; ++i) rows.Append()[0] = static_cast<uint8_t>(i);
  rows.Truncate(5);
  EXPECT_EQ(rows.size(), 5);
  EXPECT_EQ(rows.allocated_bytes(), 2 * 4 * 8);
  EXPECT_EQ(rows.Row(4)[0], 4);
  rows.Append()[0] = 55;
  EXPECT_EQ(rows.Row(5)[0], 55);
  rows.Truncate(4);
  EXPECT_EQ(rows.allocated_bytes(), 4 * 8);
  rows.Truncate(0);
  EXPECT_EQ(rows.allocated_bytes(), 0);
}

class TestPage : public LazyPage {
 public:
  explicit TestPage(bool fails) : fails_(fails) {}

 private:
  std::shared_ptr<uint8_t[]> Load() override {
    if (fails_) throw Error(ErrorCode::kCorruptFile, "gone");
    auto rows = std::make_shared<uint8_t[]>(4 * 8);
    for (int i = 0; i < 4; ++i) rows[static_cast<size_t>(8 * i)] = static_cast<uint8_t>(10 + i);
    return rows;
  }
  bool fails_;
};

TEST(CacheTest, LazyPagesAreReadWhenNeededAndSharedByCopies) {
  PagedRows rows(8, 4);
  for (int i = 0; i < 4; ++i) rows.Append()[0] = static_cast<uint8_t>(i);
  const auto page = std::make_shared<TestPage>(false);
  rows.AppendPage(page);
  rows.Append()[0] = 20;
  EXPECT_EQ(rows.size(), 9);
  EXPECT_EQ(rows.allocated_bytes(), 2 * 32);
  PagedRows copy = rows;
  rows.Need(3);
  rows.Need(8);
  EXPECT_EQ(page->loaded(), nullptr);
  rows.Need(6);
  EXPECT_EQ(rows.Row(6)[0], 12);
  EXPECT_EQ(copy.allocated_bytes(), 3 * 32);
  copy.NeedAll();
  EXPECT_EQ(copy.Row(6), rows.Row(6));
  // Whoever goes on inside such a page gets a copy of it.
  copy.Truncate(6);
  copy.Append()[0] = 77;
  EXPECT_EQ(copy.Row(5)[0], 11);
  EXPECT_EQ(copy.Row(6)[0], 77);
  EXPECT_EQ(rows.Row(6)[0], 12);
  // Also if nobody had read it.
  PagedRows unread(8, 4);
  unread.AppendPage(std::make_shared<TestPage>(false));
  unread.Truncate(2);
  unread.Append()[0] = 77;
  EXPECT_EQ(unread.Row(1)[0], 11);
  EXPECT_EQ(unread.Row(2)[0], 77);
}

TEST(CacheTest, APageThatCannotBeReadIsRemembered) {
  PagedRows rows(8, 4);
  rows.AppendPage(std::make_shared<TestPage>(true));
  const PagedRows copy = rows;
  EXPECT_FALSE(rows.failed());
  EXPECT_THROW(rows.NeedAll(), Error);
  EXPECT_TRUE(copy.failed());
}

}  // namespace
}  // namespace toaster
