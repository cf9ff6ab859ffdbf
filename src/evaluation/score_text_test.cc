#include "evaluation/score_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "engine/log_probabilities.h"
#include "engine/session.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;

class ScoreTextTest : public ::testing::Test {
 protected:
  static BackendOptions OneThread() {
    BackendOptions options;
    options.threads = 1;
    return options;
  }
  ScoreTextTest()
      : running_(LoadModel(std::string(TOASTER_SOURCE_DIR "/models/builtin")), OneThread()) {}

  /// What the serving path says of `token` after `before`.
  double LogProbability(const std::vector<int32_t>& before, int32_t token) {
    Session session(running_.model(), 64);
    session.Sync(before);
    return LogProbabilityOf(session.logits(), token).value;
  }
  std::vector<int32_t> With(std::vector<int32_t> tokens, std::span<const int32_t> more) const {
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  }

  RunningModel running_;
  const Tokenizer tokenizer_ = Tokenizer::Bytes(512);
  const std::string text_ = "Bread, butter & 3 jam\xFFjars.";
};

TEST_F(ScoreTextTest, PerplexityIsThatOfTheLogits) {
  const std::vector<int32_t> tokens = tokenizer_.Encode(text_);
  const auto size = static_cast<int64_t>(tokens.size());
  for (const auto& [window, stride] :
       std::vector<std::pair<int64_t, int64_t>>{{1000, 500}, {9, 8}, {9, 3}, {2, 1}}) {
    double expected = 0;
    int64_t begin = 0;  // of the first window that reaches the token
    for (int64_t i = 0; i < size; ++i) {
      while (i >= begin + window - 1) begin += stride;
      const std::span before(tokens.begin() + begin, tokens.begin() + i);
      expected += LogProbability(With({0}, before), tokens[static_cast<size_t>(i)]);
    }
    for (const int64_t chunk : {5, 100}) {
      const Perplexity measured =
          MeasurePerplexity(running_, tokenizer_, text_, {window, stride, chunk});
      EXPECT_EQ(measured.log_probability, expected) << window << " " << stride;
      EXPECT_EQ(measured.tokens, size);
      EXPECT_EQ(measured.bytes, static_cast<int64_t>(text_.size()));
      EXPECT_DOUBLE_EQ(measured.perplexity(), std::exp(-expected / static_cast<double>(size)));
      EXPECT_DOUBLE_EQ(measured.bits_per_byte(),
                       -expected / std::log(2.0) / static_cast<double>(text_.size()));
    }
  }
}

TEST_F(ScoreTextTest, PerplexityRefusesAndStops) {
  EXPECT_THROW(MeasurePerplexity(running_, tokenizer_, "", {}), Error);
  EXPECT_THROW(MeasurePerplexity(running_, tokenizer_, "a", {8, 8, 8}), Error);
  EXPECT_THROW(MeasurePerplexity(running_, tokenizer_, "a", {8, 0, 8}), Error);
  int64_t calls = 0;
  try {
    MeasurePerplexity(running_, tokenizer_, text_, {4, 2, 8}, [&](int64_t done, int64_t total) {
      EXPECT_LE(done, total);
      return ++calls < 2;
    });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(calls, 2);
}

TEST_F(ScoreTextTest, ChoicesScoreAsTheLogitsSay) {
  const std::vector<ChoiceCase> cases = ParseChoiceCases(
      R"({"context": "a b", "choices": [" c", "d", " ee"], "answer": 2})"
      "\n"
      R"({"messages": [{"role": "user", "content": "hi"}], "choices": ["x", "yy"], "answer": 0})",
      "test", running_.config(), tokenizer_, PromptTexts("none"));
  ASSERT_EQ(cases.size(), 2u);
  EXPECT_EQ(cases[0].context, With({0}, tokenizer_.Encode("a b")));
  EXPECT_EQ(cases[0].choices[2], tokenizer_.Encode(" ee"));
  EXPECT_EQ(cases[0].answer, 2);
  EXPECT_EQ(cases[0].bytes, (std::vector<int64_t>{2, 1, 3}));
  // BOS, User, h, i, Assistant, </think>; the answer ends with EOS.
  EXPECT_EQ(cases[1].context.size(), 6u);
  EXPECT_EQ(cases[1].choices[1], With(tokenizer_.Encode("yy"), std::vector<int32_t>{1}));
  for (const ChoiceCase& one : cases) {
    const std::vector<double> scores = ScoreChoices(running_, one, 3);
    ASSERT_EQ(scores.size(), one.choices.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      double expected = 0;
      std::vector<int32_t> before = one.context;
      for (const int32_t token : one.choices[i]) {
        expected += LogProbability(before, token);
        before.push_back(token);
      }
      EXPECT_EQ(scores[i], expected);
    }
  }
}

TEST_F(ScoreTextTest, ChoicesArePartedWhereTheTokensDiffer) {
  const Tokenizer tokenizer = Tokenizer::Load(TOASTER_SOURCE_DIR "/tests/data/tokenizer");
  const ChoiceCase one = ParseChoiceCases(
      R"({"context": "The toast", "choices": ["er warms", " is cold"], "answer": 0})", "test",
      running_.config(), tokenizer, PromptTexts("none"))[0];
  const std::string context = tokenizer.Decode(std::span(one.context).subspan(1));
  EXPECT_LE(context.size(), std::string("The toast").size());
  EXPECT_EQ(context + tokenizer.Decode(one.choices[0]), "The toaster warms");
  EXPECT_EQ(context + tokenizer.Decode(one.choices[1]), "The toast is cold");
  EXPECT_EQ(With({}, std::span(one.context).subspan(1)).size() + one.choices[0].size(),
            tokenizer.Encode("The toaster warms").size());
}

TEST_F(ScoreTextTest, BadChoicesAreNamed) {
  const auto message = [&](const std::string& line) -> std::string {
    try {
      ParseChoiceCases(line, "file", running_.config(), tokenizer_, PromptTexts("none"));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message(R"({"choices": ["a"], "answer": 0})"), HasSubstr("neither context nor"));
  EXPECT_THAT(message(R"({"context": "a", "answer": 0})"), HasSubstr("file:1: choices:"));
  EXPECT_THAT(message(R"({"context": "a", "choices": ["b", ""], "answer": 0})"),
              HasSubstr("not empty"));
  EXPECT_THAT(message(R"({"context": "a", "choices": ["b", "c"], "answer": 2})"),
              HasSubstr("answer: has to be the place of the right choice, 0 to 1"));
  EXPECT_THAT(message(R"({"context": "a", "choices": ["b", "c"], "answer": 0.5})"),
              HasSubstr("answer:"));
}

TEST(BestChoiceTest, ByProbabilityAndPerByte) {
  const std::vector<double> scores = {-6, -5, -5};
  EXPECT_EQ(BestChoice(scores), 1);
  EXPECT_EQ(BestChoice(scores, std::vector<int64_t>{6, 1, 2}), 0);
}

}  // namespace
}  // namespace toaster
