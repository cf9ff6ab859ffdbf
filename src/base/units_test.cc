#include "base/units.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

TEST(Units, Bytes) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(584), "584 B");
  EXPECT_EQ(BytesText(999.6), "1.00 kB");
  EXPECT_EQ(BytesText(3214336), "3.21 MB");
  EXPECT_EQ(BytesText(17.6e6), "17.6 MB");
  EXPECT_EQ(BytesText(159609485896), "159.6 GB");
  EXPECT_EQ(BytesText(5e15), "5000 TB");
}

TEST(Units, Counts) {
  EXPECT_EQ(CountText(512), "512");
  EXPECT_EQ(CountText(129280), "129,280");
  EXPECT_EQ(CountText(6291456), "6.29 M");
  EXPECT_EQ(CountText(284.334e9), "284.33 B");
  EXPECT_EQ(CountText(1573.04e9), "1573.0 B");
}

TEST(Units, ReadsBytes) {
  EXPECT_EQ(ParseBytes("4096"), 4096);
  EXPECT_EQ(ParseBytes("32GB"), 32'000'000'000);
  EXPECT_EQ(ParseBytes("3.5 GiB"), int64_t{7} << 29);
  EXPECT_EQ(ParseBytes("500m"), 500'000'000);
  EXPECT_EQ(ParseBytes("2Kib"), 2048);
  EXPECT_EQ(ParseBytes("1.5 TB"), 1'500'000'000'000);
  EXPECT_EQ(ParseBytes("0"), 0);
  for (const char* text : {"", "GB", "-1", "1 XB", "1GBs", "nan", "inf", "1e99", "12 iB"})
    EXPECT_EQ(ParseBytes(text), std::nullopt) << text;
}

TEST(Units, Grouped) {
  EXPECT_EQ(GroupedText(0), "0");
  EXPECT_EQ(GroupedText(999), "999");
  EXPECT_EQ(GroupedText(1000), "1,000");
  EXPECT_EQ(GroupedText(-123456), "-123,456");
  EXPECT_EQ(GroupedText(1234567), "1,234,567");
}

}  // namespace
}  // namespace toaster
