#include "engine/stop_strings.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

// Shows `text` in pieces of `piece` bytes; returns everything that came out.
std::string Show(StopStrings& stops, const std::string& text, size_t piece) {
  std::string shown;
  for (size_t i = 0; i < text.size(); i += piece) shown += stops.Push(text.substr(i, piece));
  return shown + stops.Finish();
}

TEST(StopStringsTest, EndsBeforeTheFirstWhateverThePieces) {
  const std::string text = "one\ntwo\n\nUser: three";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    StopStrings stops({"\n\nUser:", "three"});
    EXPECT_EQ(Show(stops, text, piece), "one\ntwo") << piece;
    EXPECT_TRUE(stops.found());
    EXPECT_EQ(stops.match(), "\n\nUser:");
  }
}

TEST(StopStringsTest, LetsEverythingThroughWithoutOne) {
  for (size_t piece = 1; piece <= 4; ++piece) {
    StopStrings stops({"abcd", ""});
    EXPECT_EQ(Show(stops, "ababcabc", piece), "ababcabc");
    EXPECT_FALSE(stops.found());
  }
}

TEST(StopStringsTest, HoldsBackOnlyWhatCouldBecomeOne) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.Push("the E"), "the ");
  EXPECT_EQ(stops.Push("N"), "");
  EXPECT_EQ(stops.Push("d"), "ENd");
  EXPECT_EQ(stops.Push("END more"), "");
  EXPECT_EQ(stops.Push("never shown"), "");
}

}  // namespace
}  // namespace toaster
