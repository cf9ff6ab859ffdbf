#include "engine/prefix_store.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "base/faulty_file_environment.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;
using test::Fault;
using testing::HasSubstr;

class PrefixStoreTest : public testing::Test {
 protected:
  PrefixStoreTest() : running_(LoadModel(test::GoldenCheckpoint("g2_all_kinds")), {"cpu", "", 2}) {
    for (int32_t i = 0; i < 1000; ++i) tokens_.push_back(i * i % 149);
  }

  PrefixStoreOptions Options() {
    PrefixStoreOptions options;
    options.directory = directory_.path() / "store";
    options.least_tokens = 1;
    options.environment = &environment_;
    options.note = [this](const std::string& line) { notes_.push_back(line); };
    return options;
  }
  std::span<const int32_t> First(int64_t count) const {
    return std::span(tokens_).first(static_cast<size_t>(count));
  }
  void ComputeTo(SequenceCache& cache, int64_t end) {
    const SequenceChunk chunk{First(end).subspan(static_cast<size_t>(cache.length())), &cache};
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
  std::vector<fs::path> Files(const char* folder) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(directory_.path() / "store" / folder))
      files.push_back(entry.path());
    return files;
  }
  static void FlipBit(const fs::path& path, int64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const auto byte = static_cast<char>(file.get() ^ 4);
    file.seekp(offset);
    file.put(byte);
  }

  test::TemporaryDirectory directory_;
  test::FaultyFileEnvironment environment_;
  std::vector<std::string> notes_;
  RunningModel running_;
  std::vector<int32_t> tokens_;
};

TEST_F(PrefixStoreTest, WhatComesBackGoesOnLikeAColdCache) {
  {
    PrefixStore store(Options(), running_);
    const auto cache = running_.model().NewCache();
    for (const int64_t place : {3, 127, 128, 300, 641}) {
      ComputeTo(*cache, place);
      EXPECT_GT(store.Put("", First(place), *cache), 0);
    }
  }
  const std::string cold = Digest(*CacheOf(900));
  PrefixStore store(Options(), running_);  // as after a restart
  for (const int64_t place : {3, 127, 128, 300, 641}) {
    PrefixStore::Hit hit = store.Find("", First(place + 1), 0);
    ASSERT_EQ(hit.tokens, place);
    EXPECT_GT(*hit.bytes_read, 0);
    EXPECT_EQ(hit.cache->length(), place);
    EXPECT_EQ(Digest(*hit.cache), Digest(*CacheOf(place)));
    hit = store.Find("", First(place + 1), 0);
    ComputeTo(*hit.cache, place + 1);
    ComputeTo(*hit.cache, 900);
    EXPECT_EQ(Digest(*hit.cache), cold) << place;
    EXPECT_EQ(store.Find("", First(place + 1), place).tokens, 0);
  }
  // A place in the middle of other tokens, other owners, the prompt itself: nothing to go on from.
  EXPECT_EQ(store.Find("", First(3), 0).tokens, 0);
  EXPECT_EQ(store.Find("other", First(900), 0).tokens, 0);
  tokens_[100] ^= 1;
  EXPECT_EQ(store.Find("", First(900), 0).tokens, 3);
  EXPECT_THAT(notes_, testing::IsEmpty());
}

TEST_F(PrefixStoreTest, StoresNothingTwiceAndForTheOwnerAlone) {
  PrefixStore store(Options(), running_);
  const auto cache = running_.model().NewCache();
  ComputeTo(*cache, 300);
  EXPECT_GT(store.Put("", First(300), *cache), 0);
  EXPECT_EQ(store.Put("", First(300), *cache), 0);
  EXPECT_EQ(Files("rows").size(), 2u);
  const int64_t rows = static_cast<int64_t>(fs::file_size(Files("rows")[0]));
  ComputeTo(*cache, 600);
  const int64_t more = store.Put("", First(600), *cache);
  EXPECT_EQ(Files("rows").size(), 4u);
  int64_t places = 0;
  for (const fs::path& path : Files("places")) {
    places += static_cast<int64_t>(fs::file_size(path));
  }
  EXPECT_LE(more, 2 * rows + places);
  EXPECT_EQ(environment_.bytes_written(), 4 * rows + places);
  for (const char* folder : {"rows", "places"}) {
    for (const fs::path& path : Files(folder)) {
      struct stat status;
      ASSERT_EQ(stat(path.c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 0777, 0600u);
      ASSERT_EQ(stat(path.parent_path().c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 0777, 0700u);
    }
  }
}

TEST_F(PrefixStoreTest, EntriesAreReadWhenTheyAreSelected) {
  PrefixStore store(Options(), running_);
  store.Put("", First(896), *CacheOf(896));
  PrefixStore::Hit hit = store.Find("", First(897), 0);
  const int64_t opened = *hit.bytes_read;
  ComputeTo(*hit.cache, 897);
  const int64_t used = *hit.bytes_read;
  Digest(*hit.cache);  // reads all
  EXPECT_LT(opened, used);
  EXPECT_LE(used, *hit.bytes_read);
  EXPECT_EQ(*hit.bytes_read, store.directory().bytes_written());
}

TEST_F(PrefixStoreTest, DamagedPiecesAreNamedRemovedAndStoredAgain) {
  const std::string cold = Digest(*CacheOf(700));
  const auto cache = CacheOf(641);
  for (const char* folder : {"rows", "places"}) {
    for (int64_t part = 0; part < 16; ++part) {
      fs::remove_all(directory_.path() / "store");
      notes_.clear();
      PrefixStore store(Options(), running_);
      store.Put("", First(200), *CacheOf(200));
      store.Put("", First(641), *cache);
      const auto files = Files(folder);
      const fs::path damaged = files[static_cast<size_t>(part) % files.size()];
      FlipBit(damaged, part * static_cast<int64_t>(fs::file_size(damaged)) / 16);
      // Found, and read until nothing is lazy any more; if a piece is bad, as often as it takes.
      std::unique_ptr<SequenceCache> good;
      for (int attempt = 0; attempt < 3 && good == nullptr; ++attempt) {
        PrefixStore::Hit hit = store.Find("", First(700), 0);
        if (hit.cache == nullptr) hit.cache = running_.model().NewCache();
        try {
          ComputeTo(*hit.cache, 700);
          if (Digest(*hit.cache) == cold) good = std::move(hit.cache);
        } catch (const PrefixDamage& damage) {
          EXPECT_THAT(damage.what(), HasSubstr(damaged.filename().string()));
          EXPECT_TRUE(hit.cache->failed());
        }
      }
      ASSERT_NE(good, nullptr) << folder << ", part " << part;
      if (notes_.empty()) continue;  // the shorter place or its rows, which were not needed
      EXPECT_THAT(notes_[0], HasSubstr(damaged.string()));
      EXPECT_FALSE(fs::exists(damaged));
      store.Put("", First(641), *cache);
      store.Put("", First(200), *CacheOf(200));
      EXPECT_TRUE(fs::exists(damaged)) << folder << ", part " << part;
      EXPECT_EQ(store.Find("", First(700), 0).tokens, 641);
    }
  }
}

TEST_F(PrefixStoreTest, NoFaultMakesAWrongTokenOrLeavesAFile) {
  const std::string cold = Digest(*CacheOf(700));
  const auto short_cache = CacheOf(300), long_cache = CacheOf(641);
  int64_t faults = 0, hits = 0;
  for (const Fault fault : test::kAllFaults) {
    for (uint64_t seed = 0; seed < 12; ++seed) {
      fs::remove_all(directory_.path() / "store");
      test::FaultyFileEnvironment environment(seed);
      PrefixStoreOptions options = Options();
      options.environment = &environment;
      PrefixStore store(options, running_);
      environment.Inject(fault, 0.2);
      store.Put("", First(300), *short_cache);
      store.Put("", First(641), *long_cache);
      for (const char* folder : {"rows", "places"}) {
        for (const fs::path& path : Files(folder)) {
          EXPECT_THAT(path.filename().string(), testing::Not(HasSubstr("temporary")));
        }
      }
      for (int attempt = 0; attempt < 3; ++attempt) {
        PrefixStore::Hit hit = store.Find("", First(700), 0);
        if (hit.cache == nullptr) continue;
        ++hits;
        try {
          ComputeTo(*hit.cache, 700);
          EXPECT_EQ(Digest(*hit.cache), cold) << static_cast<int>(fault) << ", seed " << seed;
        } catch (const PrefixDamage&) {
          EXPECT_TRUE(hit.cache->failed());
        }
      }
      faults += environment.faults();
    }
  }
  EXPECT_GT(faults, 100);
  EXPECT_GT(hits, 100);
}

TEST_F(PrefixStoreTest, KeepsItsSizeItsWritesAndItsFloor) {
  PrefixStoreOptions options = Options();
  {
    PrefixStore store(options, running_);
    store.Put("", First(700), *CacheOf(700));
  }
  const int64_t one = PrefixDirectory(options).List().bytes;
  options.most_bytes = one * 5 / 2;
  PrefixStore store(options, running_);
  store.Find("", First(701), 0);
  for (int32_t other = 1; other < 6; ++other) {
    std::vector<int32_t> tokens(tokens_.begin(), tokens_.begin() + 700);
    tokens[0] = other;
    std::swap(tokens, tokens_);
    tokens_.resize(1000, 3);
    store.Put("", First(700), *CacheOf(700));
    EXPECT_LE(store.directory().List().bytes, options.most_bytes);
    EXPECT_EQ(store.Find("", First(701), 0).tokens, 700) << "the newest is there";
    std::swap(tokens, tokens_);
    tokens_.resize(1000, 3);
  }
  EXPECT_EQ(store.directory().List().places.size(), 2u);
  EXPECT_EQ(store.directory().List().unused_bytes, 0);

  store.directory().Clear();
  EXPECT_EQ(store.directory().List().bytes, 0);
  options.daily_bytes = 1;
  EXPECT_EQ(PrefixStore(options, running_).Put("", First(700), *CacheOf(700)), 0);
  options.daily_bytes = 0;
  options.least_tokens = 200;
  PrefixStore choosy(options, running_);
  EXPECT_EQ(choosy.Put("", First(199), *CacheOf(199)), 0);
  EXPECT_GT(choosy.Put("", First(300), *CacheOf(300)), 0);
  EXPECT_EQ(choosy.Put("", First(499), *CacheOf(499)), 0);
  EXPECT_GT(choosy.Put("", First(500), *CacheOf(500)), 0);
  options.most_bytes = 1000;
  EXPECT_EQ(PrefixStore(options, running_).Put("", First(900), *CacheOf(900)), 0);
}

TEST_F(PrefixStoreTest, VerifyFindsEveryFlippedBitAndPruneWhatNobodyNeeds) {
  PrefixStore store(Options(), running_);
  store.Put("", First(300), *CacheOf(300));
  store.Put("", First(641), *CacheOf(641));
  EXPECT_EQ(store.directory().Verify(), 0);
  for (const char* folder : {"rows", "places"}) {
    const fs::path path = Files(folder)[0];
    const auto size = static_cast<int64_t>(fs::file_size(path));
    for (int64_t at = 0; at < size; at += 1 + size / 40) {
      std::ifstream file(path, std::ios::binary);
      const std::string content(std::istreambuf_iterator<char>(file), {});
      FlipBit(path, at);
      EXPECT_GE(store.directory().Verify(), 1) << folder << ", byte " << at;
      EXPECT_FALSE(fs::exists(path));
      store.Put("", First(641), *CacheOf(641));
      store.Put("", First(300), *CacheOf(300));
      EXPECT_TRUE(fs::exists(path));
    }
  }
  for (const fs::path& path : Files("places")) fs::remove(path);
  EXPECT_EQ(store.directory().List().unused_bytes, store.directory().List().bytes);
  store.directory().Prune(1 << 30);
  EXPECT_EQ(store.directory().List().bytes, 0);
}

TEST_F(PrefixStoreTest, SeesWhatOthersStoreAndToleratesWhatTheyRemove) {
  PrefixStore one(Options(), running_), two(Options(), running_);
  one.Put("", First(641), *CacheOf(641));
  PrefixStore::Hit hit = two.Find("", First(700), 0);
  ASSERT_EQ(hit.tokens, 641);
  one.directory().Clear();
  EXPECT_EQ(two.Find("", First(700), 0).tokens, 0);
  EXPECT_THROW(Digest(*hit.cache), PrefixDamage);
  EXPECT_GT(two.Put("", First(641), *CacheOf(641)), 0);
  EXPECT_EQ(one.Find("", First(700), 0).tokens, 641);
  EXPECT_THAT(notes_, testing::IsEmpty());
}

}  // namespace
}  // namespace toaster
