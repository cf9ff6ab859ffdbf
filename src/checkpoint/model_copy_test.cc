#include "checkpoint/model_copy.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using testing::HasSubstr;

class ModelCopyTest : public testing::Test {
 protected:
  ModelCopyTest() { std::filesystem::copy(model_, copy_); }
  std::string Message() const {
    return test::MessageOf([&] { FindModelCopy(checkpoint_, copy_); });
  }
  // The second of the model's two shards.
  std::filesystem::path Shard() const {
    return copy_ / std::filesystem::path(checkpoint_.shards()[1].origin()).filename();
  }

  test::TemporaryDirectory directory_;
  const std::filesystem::path model_ = test::GoldenCheckpoint("g3_wide_two_shards");
  const std::filesystem::path copy_ = directory_.path() / "copy";
  const Checkpoint checkpoint_ = Checkpoint::Open(model_);
};

TEST_F(ModelCopyTest, FindsTheSameFilesInTheSameOrder) {
  const auto files = FindModelCopy(checkpoint_, copy_);
  ASSERT_EQ(files.size(), checkpoint_.shards().size());
  EXPECT_EQ(files[1], Shard());
}

TEST_F(ModelCopyTest, AMissingFileIsNamed) {
  std::filesystem::remove(Shard());
  EXPECT_THAT(Message(), HasSubstr(Shard().string()));
}

TEST_F(ModelCopyTest, AFileOfAnotherSizeIsNamed) {
  std::filesystem::resize_file(Shard(), std::filesystem::file_size(Shard()) - 1);
  EXPECT_THAT(Message(), HasSubstr(Shard().string()));
  EXPECT_THAT(Message(), HasSubstr("copy it again"));
}

TEST_F(ModelCopyTest, OtherWeightsOfTheSameShapesAreNamed) {
  std::string bytes = test::ReadFile(Shard());
  for (size_t i = bytes.size() / 2; i < bytes.size(); ++i)
    bytes[i] = static_cast<char>(bytes[i] + 1);
  test::WriteFile(Shard(), bytes);
  EXPECT_THAT(Message(), HasSubstr(Shard().string()));
}

}  // namespace
}  // namespace toaster
