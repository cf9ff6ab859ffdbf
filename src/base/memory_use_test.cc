#include "base/memory_use.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "base/temporary_directory.h"

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

class MemoryLimitTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = directory_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  int64_t Limit() {
    return MemoryLimit(directory_.path() / "groups", directory_.path() / "memberships");
  }
  test::TemporaryDirectory directory_;
};

TEST_F(MemoryLimitTest, OfVersionOneIsThatOfTheGroupAndThoseAroundIt) {
  EXPECT_EQ(Limit(), std::numeric_limits<int64_t>::max());
  Write("memberships", "9:name=systemd:/\n4:memory:/outer/inner\n0::/\n");
  Write("groups/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("groups/memory/outer/inner/memory.limit_in_bytes", "7000\n");
  EXPECT_EQ(Limit(), 7000);
  Write("groups/memory/outer/memory.limit_in_bytes", "5000\n");
  EXPECT_EQ(Limit(), 5000);
}

TEST_F(MemoryLimitTest, OfVersionTwo) {
  Write("memberships", "0::/outer/inner\n");
  Write("groups/outer/inner/memory.max", "max\n");
  EXPECT_EQ(Limit(), std::numeric_limits<int64_t>::max());
  Write("groups/outer/memory.max", "6000\n");
  EXPECT_EQ(Limit(), 6000);
}

// A container's own group is mounted as the root, and its path is not there.
TEST_F(MemoryLimitTest, OfAContainerStandsAtTheRoot) {
  Write("memberships", "4:memory:/docker/abc\n");
  Write("groups/memory/memory.limit_in_bytes", "4000\n");
  EXPECT_EQ(Limit(), 4000);
}

}  // namespace
}  // namespace toaster
