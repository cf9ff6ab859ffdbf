#include "evaluation/calculator.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

TEST(CalculatorTest, Calculates) {
  EXPECT_EQ(Calculate("12*7"), "84");
  EXPECT_EQ(Calculate(" 2 + 3 * 4 - 1 "), "13");
  EXPECT_EQ(Calculate("(2+3)*4"), "20");
  EXPECT_EQ(Calculate("10-4-3"), "3");
  EXPECT_EQ(Calculate("96/8/3"), "4");
  EXPECT_EQ(Calculate("-(3-5)*--7"), "14");
  EXPECT_EQ(Calculate("9223372036854775807"), "9223372036854775807");
  EXPECT_EQ(Calculate("-9223372036854775807-1"), "-9223372036854775808");
}

TEST(CalculatorTest, SaysWhatIsWrong) {
  for (const char* text : {"", "1+", "*2", "(1", "1)", "1 2", "a", "1.5", "()", "2**3"})
    EXPECT_EQ(Calculate(text), "error: not an expression") << text;
  EXPECT_EQ(Calculate("1/0"), "error: division by zero");
  EXPECT_EQ(Calculate("7/2"), "error: the division leaves a remainder");
  const std::string lowest = "(-9223372036854775807-1)";
  for (const std::string& text :
       {std::string("9223372036854775808"), std::string("9223372036854775807+1"),
        std::string("4611686018427387904*2"), lowest + "-1", "-" + lowest, lowest + "/(-1)"}) {
    EXPECT_EQ(Calculate(text), "error: the number is too large") << text;
  }
  EXPECT_EQ(Calculate(std::string(100000, '(')), "error: nested too deeply");
  EXPECT_EQ(Calculate(std::string(100000, '-')), "error: nested too deeply");
}

}  // namespace
}  // namespace toaster
