#include "base/memory_use.h"

#include <gtest/gtest.h>

#include <vector>

namespace toaster {
namespace {

TEST(MemoryUseTest, SeesWhatIsAllocatedAndTouched) {
  const MemoryUse before = CurrentMemoryUse();
  EXPECT_GT(before.file, 0);
  constexpr int64_t kBytes = 64 << 20;
  const std::vector<char> touched(kBytes, 1);
  const MemoryUse after = CurrentMemoryUse();
  // Some of it may come from memory that was resident already.
  EXPECT_GT(after.anonymous, before.anonymous + kBytes / 2);
  EXPECT_GE(after.peak, after.anonymous);
  EXPECT_EQ(touched.back(), 1);
}

TEST(MemoryUseTest, KnowsWhatIsLeft) {
  EXPECT_GT(AvailableMemory(), 0);
  EXPECT_LT(AvailableMemory(), int64_t{1} << 50);
}

}  // namespace
}  // namespace toaster
