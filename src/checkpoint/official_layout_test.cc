#include "checkpoint/official_layout.h"

#include <gmock/gmock.h>

#include <map>

#include "checkpoint/checkpoint.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

struct Sum {
  int64_t tensors = 0;
  int64_t bytes = 0;
};

Sum Count(const std::vector<PlannedFile>& files) {
  Sum sum;
  for (const PlannedFile& file : files) {
    sum.tensors += static_cast<int64_t>(file.tensors.size());
    sum.bytes += file.bytes();
  }
  return sum;
}

// The published counts of the preview releases.
TEST(OfficialLayout, HasTheSizesOfTheReleases) {
  const std::vector<PlannedFile> flash = OfficialShards(Config::Preset("v4-flash"));
  EXPECT_EQ(flash.size(), 46u);
  EXPECT_EQ(Count(flash).tensors, 69187);
  EXPECT_EQ(Count(flash).bytes, 159609485896);
  EXPECT_EQ(flash[0].name, "model-00001-of-00046.safetensors");
  EXPECT_EQ(flash[0].tensors.size(), 1u);
  EXPECT_EQ(flash[1].tensors.size(), 1565u);   // window only
  EXPECT_EQ(flash[3].tensors.size(), 1576u);   // ratio 4
  EXPECT_EQ(flash[4].tensors.size(), 1569u);   // ratio 128
  EXPECT_EQ(flash[44].tensors.size(), 5u);     // the rest of the root
  EXPECT_EQ(flash[45].tensors.size(), 1575u);  // the draft block
  const std::vector<PlannedFile> pro = OfficialShards(Config::Preset("v4-pro"));
  EXPECT_EQ(pro.size(), 64u);
  EXPECT_EQ(Count(pro).tensors, 145116);
  EXPECT_EQ(Count(pro).bytes, 864704792696);
}

// The golden checkpoints were written by other code: every tensor has the same type and shape.
TEST(OfficialLayout, AgreesWithTheGoldenCheckpoints) {
  for (const char* set : {"g1_minimal", "g2_all_kinds", "g3_wide_two_shards", "g4_fp8_experts"}) {
    const Checkpoint checkpoint = Checkpoint::Open(test::GoldenCheckpoint(set));
    const std::vector<PlannedFile> files = SingleFile(checkpoint.config());
    ASSERT_EQ(files.size(), 1u);
    EXPECT_EQ(files[0].tensors.size(), checkpoint.size());
    for (const PlannedTensor& planned : files[0].tensors) {
      const StoredTensor* stored = checkpoint.Find(planned.name).tensor;
      ASSERT_NE(stored, nullptr) << planned.name;
      EXPECT_EQ(stored->type, planned.type) << planned.name;
      EXPECT_EQ(stored->shape, planned.shape) << planned.name;
    }
  }
}

TEST(OfficialLayout, AlignsEveryTensorToItsElements) {
  for (const PlannedFile& file : OfficialShards(Config::Preset("v4-flash"))) {
    int64_t offset = 0;
    for (const PlannedTensor& tensor : file.tensors) {
      EXPECT_EQ(offset % StoredTypeSize(tensor.type), 0) << tensor.name;
      offset += tensor.bytes();
    }
  }
}

}  // namespace
}  // namespace toaster
