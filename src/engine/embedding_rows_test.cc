#include "engine/embedding_rows.h"

#include <gmock/gmock.h>

#include <cstring>

#include "base/faulty_file_environment.h"
#include "checkpoint/test_files.h"
#include "engine/running_model.h"

namespace toaster {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class EmbeddingRowsTest : public testing::Test {
 protected:
  void ExpectRows(EmbeddingRows& rows, const std::vector<int32_t>& tokens) {
    const Matrix& table = model_.weights.embed;
    const EmbeddingSource::Rows read = rows.Read(tokens);
    ASSERT_EQ(read.numbers.size(), tokens.size());
    ASSERT_EQ(read.table.columns, table.columns);
    ASSERT_EQ(read.table.format, table.format);
    for (size_t i = 0; i < tokens.size(); ++i) {
      ASSERT_LT(read.numbers[i], read.table.rows);
      ASSERT_EQ(std::memcmp(read.table.data + read.numbers[i] * table.row_bytes(),
                            table.data + tokens[i] * table.row_bytes(),
                            static_cast<size_t>(table.row_bytes())),
                0)
          << i;
    }
  }

  const LoadedModel model_ = LoadModel(test::GoldenCheckpoint("g3_wide_two_shards"));
  test::FaultyFileEnvironment files_;
};

TEST_F(EmbeddingRowsTest, AreThoseOfTheTableEachReadOnce) {
  EmbeddingRows rows(model_, {}, files_);
  const auto last = static_cast<int32_t>(model_.config.vocab_size - 1);
  ExpectRows(rows, {3, last, 0, 3, 3, 17, last});
  EXPECT_EQ(files_.bytes_read(), 4 * model_.weights.embed.row_bytes());
  ExpectRows(rows, {5});
}

TEST_F(EmbeddingRowsTest, ADiskThatFailsIsAnErrorThatNamesThePlace) {
  EmbeddingRows rows(model_, {}, files_);
  for (const test::Fault fault : {test::Fault::kReadError, test::Fault::kShortRead}) {
    files_.Inject(fault, 1);
    EXPECT_THAT(test::MessageOf([&] { rows.Read(std::vector<int32_t>{7}); }),
                AllOf(HasSubstr(".safetensors: cannot read"), HasSubstr("at offset"),
                      HasSubstr("check the disk")));
    files_.Inject(test::Fault::kNone, 0);
    ExpectRows(rows, {7});
  }
}

TEST_F(EmbeddingRowsTest, ASecondTryOrACopyStandsIn) {
  // Fails every read of one file, as often as it is told.
  class FailingFile : public FileEnvironment {
   public:
    int Read(const std::filesystem::path& path, int64_t offset, std::span<std::byte> bytes,
             size_t& read) override {
      read = 0;
      if (path == failing && times-- > 0) return EIO;
      return FileEnvironment::Read(path, offset, bytes, read);
    }
    std::filesystem::path failing;
    int times = 0;
  } files;
  const std::vector<std::filesystem::path> shards = model_.checkpoint.ShardPaths();
  EmbeddingRows alone(model_, {}, files);
  for (const std::filesystem::path& shard : shards) {
    files.failing = shard;
    files.times = 1;
    ExpectRows(alone, {1});
  }
  std::vector<std::filesystem::path> copy;
  for (const std::filesystem::path& shard : shards)  // another name of the same file
    copy.push_back(shard.parent_path() / "." / shard.filename());
  EmbeddingRows mirrored(model_, {copy}, files);
  for (const std::filesystem::path& shard : shards) {
    files.failing = shard;
    files.times = 1'000'000;
    ExpectRows(mirrored, {1, 2});
  }
}

}  // namespace
}  // namespace toaster
