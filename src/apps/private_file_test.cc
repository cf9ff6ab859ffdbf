#include "apps/private_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using test::ReadFile;
using test::TemporaryDirectory;
using test::WriteFile;

unsigned Mode(const std::filesystem::path& path) {
  struct stat status = {};
  CHECK(stat(path.c_str(), &status) == 0, "{}", path.string());
  return status.st_mode & 0777;
}

TEST(PrivateFile, ReplacesAFileAndLeavesNothingElse) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "chat.json";
  WriteFile(path, "before");
  WritePrivateFile(path, "after");
  EXPECT_EQ(ReadFile(path), "after");
  EXPECT_EQ(Mode(path), 0600u);
  const std::filesystem::directory_iterator entries(directory.path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);
}

TEST(PrivateFile, SaysWhyItCannotWrite) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "missing" / "chat.json";
  try {
    WritePrivateFile(path, "x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_EQ(error.what(), path.string() + ": cannot write: No such file or directory");
  }
  // A folder in the way: what was written beside it is gone again.
  std::filesystem::create_directory(directory.path() / "folder");
  EXPECT_THROW(WritePrivateFile(directory.path() / "folder", "x"), Error);
  const std::filesystem::directory_iterator entries(directory.path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);
}

TEST(PrivateFile, AppendsAndMakesTheFolders) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a" / "b" / "history";
  AppendPrivateFile(path, "one\n");
  AppendPrivateFile(path, "two\n");
  EXPECT_EQ(ReadFile(path), "one\ntwo\n");
  EXPECT_EQ(Mode(path), 0600u);
  EXPECT_EQ(Mode(directory.path() / "a"), 0700u);
}

}  // namespace
}  // namespace toaster
