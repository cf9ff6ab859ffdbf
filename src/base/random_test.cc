#include "base/random.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

// The known answers published with the generator (Random123, kat_vectors, philox4x32 10 rounds).
TEST(RandomTest, PhiloxKnownAnswers) {
  EXPECT_EQ(Philox(0, 0, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox(~0ull, ~0ull, ~0ull),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomTest, UniformStaysBelowOne) {
  EXPECT_EQ(UniformDouble(0, 0), 0.0);
  EXPECT_LT(UniformDouble(~0u, ~0u), 1.0);
  EXPECT_GT(UniformDouble(~0u, ~0u), 0.999999);
}

}  // namespace
}  // namespace toaster
