#include "engine/expert_uses.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

TEST(ExpertUsesTest, AUseWeighsHalfAfterItsHalfLife) {
  ExpertUses uses(3, 10);
  uses.Add(0), uses.Add(0), uses.Add(0);
  uses.Age(10);
  uses.Add(1);
  EXPECT_DOUBLE_EQ(uses.weight(0) / uses.weight(1), 1.5);
  EXPECT_EQ(uses.MostUsed(), (std::vector<int64_t>{0, 1}));
  uses.Age(10);
  uses.Add(1);
  EXPECT_DOUBLE_EQ(uses.weight(0) / uses.weight(1), 0.5) << "0.75 of 1.5";
  EXPECT_EQ(uses.MostUsed(), (std::vector<int64_t>{1, 0}));
}

TEST(ExpertUsesTest, OrderOutlastsAnyAge) {
  ExpertUses uses(2, 1);
  for (int i = 0; i < 10'000; ++i) {
    uses.Add(i % 3 == 0 ? 0 : 1);
    uses.Age(1);
  }
  uses.Add(0);
  EXPECT_GT(uses.weight(0), uses.weight(1));
  EXPECT_TRUE(std::isfinite(uses.weight(0)));
}

class ExpertHistoryTest : public testing::Test {
 protected:
  ExpertHistoryTest() {
    uses_.Add(2), uses_.Add(2), uses_.Add(1);
    uses_.Save(file_, "a model");
  }
  // Whether a file with this content is taken.
  bool Loads(const std::string& content) {
    test::WriteFile(file_, content);
    ExpertUses uses(4, 10);
    uses.Add(3);
    const bool loaded = uses.Load(file_, "a model");
    EXPECT_EQ(uses.MostUsed(), loaded ? (std::vector<int64_t>{2, 1}) : (std::vector<int64_t>{3}));
    return loaded;
  }

  test::TemporaryDirectory directory_;
  const std::filesystem::path file_ = directory_.path() / "deeper" / "one.uses";
  ExpertUses uses_{4, 10};
};

TEST_F(ExpertHistoryTest, ComesBack) { EXPECT_TRUE(Loads(test::ReadFile(file_))); }

TEST_F(ExpertHistoryTest, NothingDamagedIsTaken) {
  const std::string content = test::ReadFile(file_);
  for (size_t i = 0; i < content.size(); ++i) {
    std::string other = content;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_FALSE(Loads(other)) << "byte " << i;
    EXPECT_FALSE(Loads(content.substr(0, i))) << "cut at " << i;
  }
  EXPECT_FALSE(Loads(content + "x"));
}

TEST_F(ExpertHistoryTest, AnotherModelHasItsOwn) {
  ExpertUses same_size(4, 10), other_size(5, 10);
  EXPECT_FALSE(same_size.Load(file_, "another"));
  EXPECT_FALSE(other_size.Load(file_, "a model"));
  EXPECT_FALSE(same_size.Load(directory_.path() / "none", "a model"));
}

TEST_F(ExpertHistoryTest, WhatCannotBeWrittenIsNamed) {
  test::WriteFile(directory_.path() / "file", "");
  EXPECT_NE(test::MessageOf([&] {
              uses_.Save(directory_.path() / "file" / "x.uses", "m");
            }).find((directory_.path() / "file").string()),
            std::string::npos);
}

}  // namespace
}  // namespace toaster
