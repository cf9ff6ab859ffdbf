#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"

namespace toaster {
namespace {

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

std::map<int32_t, int> Draw(const SamplingOptions& options, int draws) {
  std::map<int32_t, int> counts;
  Sampler sampler(options, 5);
  for (int i = 0; i < draws; ++i) ++counts[sampler.Sample(kLogits, i)];
  return counts;
}

TEST(SamplerTest, GreedyTakesTheLowerOfEquals) {
  SamplingOptions options;
  options.temperature = 0;
  EXPECT_EQ(Sampler(options, 5).Sample(kLogits, 0), 1);
  EXPECT_EQ(ArgMax(kLogits), 1);
}

// 20,000 draws: the share of a token of probability p has a standard deviation of at most 0.0036;
// five of them are allowed.
TEST(SamplerTest, DrawsFromTheDistribution) {
  SamplingOptions options;
  options.seed = 7;
  const std::map<int32_t, int> counts = Draw(options, 20000);
  double total = 0;
  for (const float logit : kLogits) total += std::exp(static_cast<double>(logit));
  for (int32_t token = 0; token < 5; ++token) {
    const double p = std::exp(static_cast<double>(kLogits[static_cast<size_t>(token)])) / total;
    EXPECT_NEAR(counts.at(token) / 20000.0, p, 0.018) << token;
  }
}

TEST(SamplerTest, DependsOnSeedAndPositionAlone) {
  SamplingOptions options;
  options.seed = 3;
  Sampler a(options, 5), b(options, 5);
  std::vector<int32_t> forward, backward(100);
  for (int i = 0; i < 100; ++i) forward.push_back(a.Sample(kLogits, i));
  for (int i = 99; i >= 0; --i) backward[static_cast<size_t>(i)] = b.Sample(kLogits, i);
  EXPECT_EQ(forward, backward);
  options.seed = 4;
  Sampler c(options, 5);
  std::vector<int32_t> other;
  for (int i = 0; i < 100; ++i) other.push_back(c.Sample(kLogits, i));
  EXPECT_NE(forward, other);
}

TEST(SamplerTest, TruncationsKeepWhatTheySay) {
  SamplingOptions options;
  options.top_k = 2;
  for (const auto& [token, count] : Draw(options, 500)) EXPECT_TRUE(token == 1 || token == 3);
  options = {};
  options.top_k = 1;  // of equals the lower one
  EXPECT_EQ(Draw(options, 100), (std::map<int32_t, int>{{1, 100}}));
  options = {};
  options.top_p = 0.5f;  // tokens 1 and 3 have 0.40 each
  for (const auto& [token, count] : Draw(options, 500)) EXPECT_TRUE(token == 1 || token == 3);
  options.top_p = 0;  // always one token
  EXPECT_EQ(Draw(options, 100), (std::map<int32_t, int>{{1, 100}}));
  options = {};
  options.min_p = 0.3f;  // e^-1 = 0.37 stays, e^-2 = 0.14 goes
  EXPECT_EQ(Draw(options, 2000).count(0), 0u);
  EXPECT_EQ(Draw(options, 2000).count(2), 1u);
}

TEST(SamplerTest, BiasAndPenaltiesMoveLogits) {
  SamplingOptions options;
  options.temperature = 0;
  options.logit_bias = {{4, 10.0f}};
  EXPECT_EQ(Sampler(options, 5).Sample(kLogits, 0), 4);

  options = {};
  options.temperature = 0;
  options.presence_penalty = 0.5f;
  Sampler presence(options, 5);
  presence.Accept(1);
  EXPECT_EQ(presence.Sample(kLogits, 0), 3);

  options = {};
  options.temperature = 0;
  options.frequency_penalty = 0.4f;
  Sampler frequency(options, 5);
  for (const int32_t token : {1, 1, 1, 3, 3, 3}) frequency.Accept(token);  // both fall to 1.8
  EXPECT_EQ(frequency.Sample(kLogits, 0), 2);

  options = {};
  options.temperature = 0;
  options.repetition_penalty = 2;
  Sampler repetition(options, 5);
  repetition.AcceptPrompt(std::vector<int32_t>{1, 3});
  EXPECT_EQ(repetition.Sample(kLogits, 0), 2);
}

TEST(SamplerTest, NamesWhatIsOutOfRange) {
  const auto message = [](auto change) {
    SamplingOptions options;
    change(options);
    try {
      Sampler(options, 5);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message([](auto& o) { o.temperature = -1; }),
            "temperature is -1; it has to be between 0 and 100");
  EXPECT_EQ(message([](auto& o) { o.top_p = 1.5f; }), "top_p is 1.5; it has to be between 0 and 1");
  EXPECT_EQ(message([](auto& o) { o.min_p = NAN; }), "min_p is nan; it has to be between 0 and 1");
  EXPECT_EQ(message([](auto& o) { o.top_k = -2; }), "top_k is -2; it has to be 0 (off) or more");
  EXPECT_EQ(message([](auto& o) {
              o.logit_bias = {{5, 1.0f}};
            }),
            "logit_bias names token 5; this model knows tokens 0 to 4");
}

TEST(SamplerTest, RefusesLogitsThatAreNoNumbers) {
  Sampler sampler({}, 2);
  EXPECT_THROW(sampler.Sample(std::vector<float>{1.0f, NAN}, 0), Error);
  EXPECT_THROW(sampler.Sample(std::vector<float>{-INFINITY, -INFINITY}, 0), Error);
}

}  // namespace
}  // namespace toaster
