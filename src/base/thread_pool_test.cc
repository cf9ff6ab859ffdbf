#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace toaster {
namespace {

TEST(ThreadPoolTest, CoversEveryIndexOnce) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 5, 64, 1000}) {
      for (int64_t grain : {1, 3, 64}) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(count));
        pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int thread) {
          EXPECT_GE(thread, 0);
          EXPECT_LT(thread, threads);
          EXPECT_TRUE(begin % grain == 0);
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        for (const auto& hit : hits) EXPECT_EQ(hit, 1);
      }
    }
  }
}

TEST(ThreadPoolTest, OthersTakeOverWhatASlowThreadHasBeforeIt) {
  ThreadPool pool(2);
  constexpr int64_t kPieces = 64;
  std::atomic<int64_t> done = 0;
  pool.ParallelFor(kPieces, 1, [&](int64_t begin, int64_t, int) {
    if (begin == 0) {  // holds its thread up until all others are done
      while (done < kPieces - 1) std::this_thread::yield();
    }
    ++done;
  });
  EXPECT_EQ(done, kPieces);
}

TEST(ThreadPoolTest, AThreadGoesThroughNeighbours) {
  ThreadPool pool(2);
  constexpr int64_t kPieces = 64;
  std::vector<int64_t> order[2];
  std::atomic<int> started = 0;
  pool.ParallelFor(kPieces, 1, [&](int64_t begin, int64_t, int thread) {
    auto& pieces = order[thread];
    if (pieces.size() < 2) {  // wait for each other: neither takes over the other's share
      const int both = 2 * static_cast<int>(pieces.size() + 1);
      ++started;
      while (started < both) std::this_thread::yield();
    }
    pieces.push_back(begin);
  });
  for (const auto& pieces : order) {
    ASSERT_GE(pieces.size(), 2U);
    EXPECT_EQ(pieces[1], pieces[0] + 1);
  }
}

TEST(ThreadPoolTest, RethrowsAndStaysUsable) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.ParallelFor(100, 1,
                                  [](int64_t begin, int64_t, int) {
                                    if (begin == 37) throw std::runtime_error("piece 37");
                                  }),
                 std::runtime_error);
    std::atomic<int> sum = 0;
    pool.ParallelFor(10, 1, [&](int64_t begin, int64_t, int) { sum += static_cast<int>(begin); });
    EXPECT_EQ(sum, 45);
  }
}

TEST(ThreadPoolTest, UsesAtLeastOneProcessor) { EXPECT_GE(UsableProcessors(), 1); }

}  // namespace
}  // namespace toaster
