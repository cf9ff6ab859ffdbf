#include "evaluation/needle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace toaster {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

int64_t Bytes(const std::string& text) { return static_cast<int64_t>(text.size()); }

TEST(NeedleTest, FillsTheLengthAndNoMore) {
  for (const int64_t length : {100, 101, 500, 1000, 20000}) {
    NeedleOptions options = {length, 0.5, 3, 4, {"One.", "Two two.", "Three three three."}};
    const Needle needle = MakeNeedle(options, "\n\nWhich?", Bytes);
    EXPECT_LE(Bytes(needle.text), length);
    EXPECT_GT(Bytes(needle.text), length - 20);  // another line would not fit
    EXPECT_THAT(needle.text, EndsWith("\n\nWhich?"));
    EXPECT_THAT(needle.text, HasSubstr("The pass key is " + needle.key + ". Remember it"));
    EXPECT_EQ(needle.key.size(), 5u);
  }
}

TEST(NeedleTest, HidesAtTheDepthAskedFor) {
  for (const double depth : {0.0, 0.25, 0.5, 1.0}) {
    const Needle needle = MakeNeedle({10000, depth, 0, 0, {"Same."}}, "?", Bytes);
    const double place = static_cast<double>(needle.text.find("The pass key"));
    // Everything before the sentence is filler; the sentence itself is about 60 of 10,000 bytes.
    EXPECT_NEAR(place / 10000, depth, 0.01) << depth;
  }
  EXPECT_THAT(MakeNeedle({500, 0, 0, 0, {}}, "?", Bytes).text, StartsWith("The pass key is"));
}

TEST(NeedleTest, SeedAndNumberDecide) {
  const auto key = [](uint64_t seed, uint64_t number) {
    return MakeNeedle({500, 0.5, seed, number, {}}, "?", Bytes).key;
  };
  EXPECT_EQ(key(1, 2), key(1, 2));
  EXPECT_NE(key(1, 2), key(1, 3));
  EXPECT_NE(key(1, 2), key(2, 2));
}

TEST(NeedleTest, TooShortALengthIsNamed) {
  try {
    MakeNeedle({10, 0.5, 0, 0, {}}, "?", Bytes);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("do not fit into 10 tokens"));
  }
}

}  // namespace
}  // namespace toaster
