#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include "checkpoint/test_files.h"
#include "engine/running_model.h"

namespace toaster {
namespace {

class PrefixCacheTest : public testing::Test {
 protected:
  PrefixCacheTest() : running_(LoadModel(test::GoldenCheckpoint("g2_all_kinds")), {"cpu", "", 2}) {
    for (int32_t i = 0; i < 700; ++i) tokens_.push_back(i * 31 % 150);
  }

  std::span<const int32_t> First(size_t count) const { return std::span(tokens_).first(count); }
  // Computes tokens_ up to `end` behind what `cache` has.
  void ComputeTo(SequenceCache& cache, int64_t end) {
    const SequenceChunk chunk{std::span(tokens_).subspan(static_cast<size_t>(cache.length()),
                                                         static_cast<size_t>(end - cache.length())),
                              &cache};
    Tensor streams;
    running_.model().Forward({&chunk, 1}, streams);
  }
  std::unique_ptr<SequenceCache> CacheOf(int64_t length) {
    auto cache = running_.model().NewCache();
    ComputeTo(*cache, length);
    return cache;
  }
  std::string Digest(const SequenceCache& cache) {
    return cache.DigestHex(running_.config(), running_.backend());
  }

  RunningModel running_;
  std::vector<int32_t> tokens_;
};

TEST_F(PrefixCacheTest, APlaceGoesOnLikeAColdCache) {
  PrefixCache prefixes(1 << 30);
  auto cache = CacheOf(0 + 203);
  prefixes.Keep("", First(203), *cache);
  ComputeTo(*cache, 450);  // the timeline goes on, and its pages with it
  prefixes.Keep("", First(450), *cache);
  for (const int64_t place : {203, 450}) {
    PrefixCache::Hit hit = prefixes.Find("", First(static_cast<size_t>(place) + 1));
    ASSERT_EQ(hit.tokens, place);
    EXPECT_EQ(hit.miss_reason, "");
    EXPECT_EQ(Digest(*hit.cache), Digest(*CacheOf(place)));
    ComputeTo(*hit.cache, 700);
    EXPECT_EQ(Digest(*hit.cache), Digest(*CacheOf(700)));
  }
  // Nobody wrote into what others share.
  EXPECT_EQ(Digest(*prefixes.Find("", First(204)).cache), Digest(*CacheOf(203)));
  EXPECT_EQ(Digest(*cache), Digest(*CacheOf(450)));
}

TEST_F(PrefixCacheTest, FindsTheLongestPlaceOfItsOwner) {
  PrefixCache prefixes(1 << 30);
  EXPECT_EQ(prefixes.Find("a", First(10)).miss_reason, "nothing is cached yet");
  for (const int64_t length : {50, 100}) prefixes.Keep("a", First(length), *CacheOf(length));
  EXPECT_EQ(prefixes.Find("a", First(300)).tokens, 100);
  EXPECT_EQ(prefixes.Find("a", First(300)).miss_reason, "the rest is new");
  EXPECT_EQ(prefixes.Find("a", First(101)).miss_reason, "");
  EXPECT_EQ(prefixes.Find("a", First(100)).tokens, 50);  // one token is left to compute
  EXPECT_EQ(prefixes.Find("a", First(50)).tokens, 0);
  EXPECT_EQ(prefixes.Find("b", First(300)).tokens, 0);
  EXPECT_EQ(prefixes.Find("b", First(300)).miss_reason, "the cache belongs to another user_id");
  std::vector<int32_t> other(tokens_.begin(), tokens_.begin() + 300);
  other[80] = 151;
  EXPECT_EQ(prefixes.Find("a", other).tokens, 50);
  EXPECT_EQ(prefixes.Find("a", other).miss_reason,
            "token 80 is the first that differs from what is cached; the last place kept before it "
            "is token 50");
  other[0] = 151;
  EXPECT_EQ(prefixes.Find("a", other).miss_reason, "nothing cached begins so");
  prefixes.Keep("a", First(100), *CacheOf(100));  // known already
  EXPECT_EQ(prefixes.places(), 2);
}

TEST_F(PrefixCacheTest, CountsSharedPagesOnceAndKeepsToItsBudget) {
  auto cache = CacheOf(640);
  const int64_t one = cache->allocated_bytes() + 640 * 4;
  PrefixCache roomy(1 << 30);
  roomy.Keep("", First(640), *cache);
  EXPECT_EQ(roomy.bytes(), one);
  ComputeTo(*cache, 641);
  roomy.Keep("", First(641), *cache);
  EXPECT_LT(roomy.bytes(), 2 * one);
  EXPECT_GT(roomy.bytes(), one);

  // Room for two separate caches, not three.
  std::vector<int32_t> others[3];
  PrefixCache tight(2 * one + one / 2);
  for (int i = 0; i < 3; ++i) {
    others[i].assign(tokens_.begin(), tokens_.begin() + 640);
    tokens_[0] = others[i][0] = 140 + i;
    tight.Keep("", others[i], *CacheOf(640));
    EXPECT_LE(tight.bytes(), 2 * one + one / 2);
  }
  EXPECT_EQ(tight.places(), 2);
  others[0].push_back(5);
  EXPECT_EQ(tight.Find("", others[0]).tokens, 0);
  EXPECT_EQ(tight.Find("", others[0]).miss_reason,
            "the cache of the first 640 tokens was given up for others");
  others[2].push_back(5);
  EXPECT_EQ(tight.Find("", others[2]).tokens, 640);
}

}  // namespace
}  // namespace toaster
