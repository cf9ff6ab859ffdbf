#include "evaluation/proportion.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

TEST(ProportionTest, WilsonsIntervals) {
  // Worked out by hand from the formula with z = 1.96; the last digits given are sure.
  const Proportion::Interval many = Proportion{190, 200}.Wilson();
  EXPECT_NEAR(many.low, 0.9104, 5e-5);
  EXPECT_NEAR(many.high, 0.9726, 5e-5);
  const Proportion::Interval none = Proportion{0, 10}.Wilson();
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.2775, 5e-5);
  const Proportion::Interval all = Proportion{10, 10}.Wilson();
  EXPECT_NEAR(all.low, 1 - 0.2775, 5e-5);
  EXPECT_DOUBLE_EQ(all.high, 1);
  EXPECT_EQ(Proportion().Wilson().low, 0);
  EXPECT_EQ(Proportion().Wilson().high, 1);
}

TEST(ProportionTest, CountsAndPrints) {
  Proportion proportion;
  EXPECT_EQ(proportion.share(), 0);
  for (int i = 0; i < 200; ++i) proportion.Add(i >= 10);
  EXPECT_EQ(proportion.Text(), "190 of 200, 95.0 % (91.0 to 97.3)");
}

}  // namespace
}  // namespace toaster
