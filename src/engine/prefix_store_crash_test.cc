#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/random.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"
#include "engine/prefix_store.h"

namespace toaster {
namespace {

// A process that writes into the store is killed at a random moment, 200 times. Whatever it left,
// the store opens, what it gives is right, and in the end no file is there that should not be.
TEST(PrefixStoreCrashLongTest, SurvivesKillsAtAnyMoment) {
  RunningModel running(LoadModel(test::GoldenCheckpoint("g2_all_kinds")), {"reference", "", 0});
  const test::TemporaryDirectory directory;
  PrefixStoreOptions options;
  options.directory = directory.path() / "store";
  options.least_tokens = 1;
  int64_t notes = 0;
  options.note = [&](const std::string&) { ++notes; };

  std::vector<int32_t> tokens(700);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i % 149);
  const auto cache = running.model().NewCache();
  const SequenceChunk chunk{tokens, cache.get()};
  Tensor streams;
  running.model().Forward({&chunk, 1}, streams);
  const std::string cold = cache->DigestHex(running.config(), running.backend());

  int64_t found = 0, lost = 0;
  for (uint64_t run = 0; run < 200; ++run) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      // Each owner's prefix is another, so that all of it is written.
      PrefixStore store(options, running);
      for (uint64_t owner = 0;; ++owner) {
        store.Put(std::to_string(run * 1000 + owner % 3), tokens, *cache);
        if (owner % 3 == 2) store.directory().Clear();
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(Philox(7, run, 0)[0] % 60000));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    PrefixStore store(options, running);
    std::vector<int32_t> prompt = tokens;
    prompt.push_back(1);
    for (uint64_t owner = 0; owner < 3; ++owner) {
      const PrefixStore::Hit hit = store.Find(std::to_string(run * 1000 + owner), prompt, 0);
      ++(hit.cache == nullptr ? lost : found);
      if (hit.cache == nullptr) continue;
      ASSERT_EQ(hit.cache->DigestHex(running.config(), running.backend()), cold) << run;
    }
    EXPECT_EQ(store.directory().Verify(), 0) << "a file got its name before it was whole";
    for (const char* folder : {"rows", "places"}) {
      for (const auto& entry : std::filesystem::directory_iterator(options.directory / folder)) {
        EXPECT_FALSE(entry.path().filename().string().starts_with("temporary")) << entry.path();
      }
    }
    if (run % 10 == 9) store.directory().Clear();
  }
  EXPECT_EQ(notes, 0);
  EXPECT_GT(found, 0);
  EXPECT_GT(lost, 0);
  PrefixDirectory(options).Prune(0);
  EXPECT_EQ(PrefixDirectory(options).List().bytes, 0);
}

}  // namespace
}  // namespace toaster
