#include "base/file_environment.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/faulty_file_environment.h"
#include "base/temporary_directory.h"

namespace toaster {
namespace {

using test::Fault;

std::vector<std::byte> Bytes(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(1 + i % 255);
  return bytes;
}

class FileEnvironmentTest : public testing::Test {
 protected:
  int Write(FileEnvironment& environment, std::span<const std::byte> bytes) {
    return environment.WriteWhole(directory_.path() / "temporary", path(), bytes);
  }
  std::filesystem::path path() const { return directory_.path() / "file"; }
  size_t files() const {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(directory_.path()), {}));
  }

  test::TemporaryDirectory directory_;
};

TEST_F(FileEnvironmentTest, WritesWholeFilesForTheOwnerAlone) {
  const auto bytes = Bytes(10000);
  ASSERT_EQ(Write(FileEnvironment::System(), bytes), 0);
  struct stat status;
  ASSERT_EQ(stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(files(), 1u);

  std::vector<std::byte> read(10001);
  size_t count = 0;
  ASSERT_EQ(FileEnvironment::System().Read(path(), 0, read, count), 0);
  ASSERT_EQ(count, bytes.size());  // the file ends before the buffer does
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), read.begin()));
  ASSERT_EQ(FileEnvironment::System().Read(path(), 9990, read, count), 0);
  EXPECT_EQ(count, 10u);
  EXPECT_EQ(FileEnvironment::System().Read(directory_.path() / "none", 0, read, count), ENOENT);
}

TEST_F(FileEnvironmentTest, NeverTakesAnotherWritersTemporaryFile) {
  int descriptor = -1;
  ASSERT_EQ(FileEnvironment::System().Create(directory_.path() / "temporary", descriptor), 0);
  EXPECT_EQ(Write(FileEnvironment::System(), Bytes(10)), EEXIST);
  EXPECT_TRUE(std::filesystem::exists(directory_.path() / "temporary"));
  FileEnvironment::System().Close(descriptor);
}

TEST_F(FileEnvironmentTest, WhatFailsLeavesNothing) {
  for (const auto& [fault, reason] :
       {std::pair(Fault::kNoSpace, ENOSPC), std::pair(Fault::kWriteError, EIO),
        std::pair(Fault::kSyncError, EIO), std::pair(Fault::kRenameError, EIO)}) {
    test::FaultyFileEnvironment environment;
    environment.Inject(fault, 1);
    EXPECT_EQ(Write(environment, Bytes(10)), reason);
    EXPECT_EQ(files(), 0u);
  }
}

TEST_F(FileEnvironmentTest, ShortWritesAreGoneOnWith) {
  test::FaultyFileEnvironment environment;
  environment.Inject(Fault::kShortWrite, 1);
  const auto bytes = Bytes(5000);
  ASSERT_EQ(Write(environment, bytes), 0);
  EXPECT_GT(environment.faults(), 1);
  EXPECT_EQ(environment.bytes_written(), 5000);
  std::vector<std::byte> read(5000);
  size_t count = 0;
  ASSERT_EQ(FileEnvironment::System().Read(path(), 0, read, count), 0);
  EXPECT_EQ(read, bytes);
}

TEST_F(FileEnvironmentTest, LiesAreToldSilently) {
  const auto bytes = Bytes(5000);
  std::vector<std::byte> read(5000);
  size_t count = 0;
  test::FaultyFileEnvironment environment;
  environment.Inject(Fault::kTornPage, 1);
  ASSERT_EQ(Write(environment, bytes), 0);
  ASSERT_EQ(FileEnvironment::System().Read(path(), 0, read, count), 0);
  EXPECT_NE(read, bytes);

  ASSERT_EQ(Write(FileEnvironment::System(), bytes), 0);
  environment.Inject(Fault::kFlippedBit, 1);
  ASSERT_EQ(environment.Read(path(), 0, read, count), 0);
  EXPECT_NE(read, bytes);
  environment.Inject(Fault::kShortRead, 1);
  ASSERT_EQ(environment.Read(path(), 0, read, count), 0);
  EXPECT_LT(count, bytes.size());
}

}  // namespace
}  // namespace toaster
