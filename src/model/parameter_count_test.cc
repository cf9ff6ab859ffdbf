#include "model/parameter_count.h"

#include <gtest/gtest.h>

namespace toaster {
namespace {

// The published figures, to their digits.
TEST(ParameterCount, OfTheReleasedModels) {
  const ParameterCount flash = CountParameters(Config::Preset("v4-flash"));
  EXPECT_NEAR(static_cast<double>(flash.total) / 1e9, 284.33, 0.005);
  EXPECT_NEAR(static_cast<double>(flash.active) / 1e9, 13.27, 0.005);
  const ParameterCount pro = CountParameters(Config::Preset("v4-pro"));
  EXPECT_NEAR(static_cast<double>(pro.total) / 1e9, 1573.0, 0.05);
  EXPECT_NEAR(static_cast<double>(pro.active) / 1e9, 48.85, 0.005);
}

TEST(ParameterCount, CountsByHand) {
  Config config = Config::Preset("tiny");
  config.num_hidden_layers = 1;
  config.num_nextn_predict_layers = 0;
  config.compress_ratios = {0};
  const int64_t d = 256, f = 128;
  const int64_t hyper = 24 * 4 * d + 24 + 3, expert = 3 * d * f;
  const int64_t attention = 128 * d + 128 + 384 * 128 + 96 * d + 96 + 4 + 128 * 192 + d * 128;
  const int64_t rest = 2 * 512 * d + d + 4 * 4 * d + 4 + 1;
  const int64_t dense = 2 * hyper + 2 * d + attention + 4 * d + expert + rest;
  const ParameterCount count = CountParameters(config);
  EXPECT_EQ(count.total, dense + 4 * expert);  // a hash-routed layer has no bias
  EXPECT_EQ(count.active, dense - 512 * d + 2 * expert);
  EXPECT_EQ(count.drafts, 0);
}

}  // namespace
}  // namespace toaster
