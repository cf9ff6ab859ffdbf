#include "engine/session.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "engine/running_model.h"

namespace toaster {
namespace {

class SessionTest : public ::testing::Test {
 protected:
  SessionTest()
      : running_(LoadModel(std::filesystem::path(TOASTER_SOURCE_DIR) /
                           "tests/golden/g1_minimal/checkpoint"),
                 {"cpu", "", 2, Numerics::kOfficial}) {}

  std::vector<float> LogitsOf(const std::vector<int32_t>& tokens) {
    Session session(running_.model(), 1000);
    session.Sync(tokens);
    return {session.logits().begin(), session.logits().end()};
  }
  static std::vector<float> Copy(std::span<const float> logits) {
    return {logits.begin(), logits.end()};
  }
  std::string MessageOf(const std::vector<int32_t>& tokens) {
    Session session(running_.model(), 1000);
    try {
      session.Sync(tokens);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  RunningModel running_;
};

TEST_F(SessionTest, ReusesAPrefixAndRebuildsAfterAChange) {
  Session session(running_.model(), 4);
  std::vector<int32_t> tokens = {5, 9, 3, 77, 12, 40};
  EXPECT_EQ(session.Sync(tokens), 0);
  tokens.push_back(8);
  EXPECT_EQ(session.Sync(tokens), 6);
  EXPECT_EQ(Copy(session.logits()), LogitsOf(tokens));
  EXPECT_EQ(session.Sync(tokens), 7);  // nothing to do
  tokens[2] = 4;
  EXPECT_EQ(session.Sync(tokens), 0);
  EXPECT_EQ(Copy(session.logits()), LogitsOf(tokens));
  tokens.resize(3);
  EXPECT_EQ(session.Sync(tokens), 0);
  EXPECT_EQ(Copy(session.logits()), LogitsOf(tokens));
}

TEST_F(SessionTest, KeepsWhatACancelledPrefillComputed) {
  Session session(running_.model(), 4);
  const std::vector<int32_t> tokens = {5, 9, 3, 77, 12, 40, 8, 1, 2, 3};
  std::vector<int64_t> seen;
  try {
    session.Sync(tokens, [&](int64_t done, int64_t total) {
      EXPECT_EQ(total, 10);
      seen.push_back(done);
      return done < 8;
    });
    ADD_FAILURE() << "not cancelled";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
    EXPECT_STREQ(error.what(), "stopped after 8 of 10 tokens");
  }
  EXPECT_EQ(seen, (std::vector<int64_t>{4, 8}));
  EXPECT_EQ(session.Sync(tokens), 8);
  EXPECT_EQ(Copy(session.logits()), LogitsOf(tokens));
}

TEST_F(SessionTest, GoesBackToTheEndsOfPrompts) {
  Session session(running_.model(), 4);
  std::vector<int32_t> first(11), second(30);
  for (size_t i = 0; i < second.size(); ++i) second[i] = static_cast<int32_t>(i * 7 % 120);
  std::copy_n(second.begin(), first.size(), first.begin());
  session.Sync(first);
  std::vector<int32_t> reply = first;
  for (const int32_t token : {4, 4, 4, 90, 2, 6, 1}) {  // past blocks of 4 and the window of 16
    reply.push_back(token);
    session.Sync(reply);
  }
  EXPECT_EQ(session.Sync(second), 11);
  EXPECT_EQ(Copy(session.logits()), LogitsOf(second));
  // Another end of the first prompt, whose last two tokens were said not to be stable.
  Session doubtful(running_.model(), 4);
  doubtful.Sync(first, nullptr, 9);
  EXPECT_EQ(Copy(doubtful.logits()), LogitsOf(first));
  std::vector<int32_t> other = first;
  other[9] = 77;
  EXPECT_EQ(doubtful.Sync(other), 9);
  EXPECT_EQ(Copy(doubtful.logits()), LogitsOf(other));
  other[8] = 78;
  EXPECT_EQ(doubtful.Sync(other), 0);
  EXPECT_EQ(Copy(doubtful.logits()), LogitsOf(other));
}

TEST_F(SessionTest, StopsALargeChunkBetweenItsLayersAndLosesNothing) {
  std::vector<int32_t> tokens(300);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i % 120);
  Session session(running_.model(), 100);
  const int64_t layers = running_.config().num_hidden_layers;
  ASSERT_GE(layers, 2);
  int64_t calls = 0;
  // In the second chunk, after its first layer.
  const auto stop = [&](int64_t done, int64_t) {
    EXPECT_EQ(done, ++calls * 100 / layers);
    return calls <= layers;
  };
  try {
    session.Sync(tokens, stop);
    ADD_FAILURE() << "not cancelled";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "stopped after 100 of 300 tokens");
  }
  EXPECT_EQ(session.tokens().size(), 100u);
  EXPECT_EQ(session.Sync(tokens), 100);
  EXPECT_EQ(Copy(session.logits()), LogitsOf(tokens));
}

TEST_F(SessionTest, RefusesBadTokensAndLosesNothing) {
  EXPECT_EQ(MessageOf({}), "the prompt has no tokens; give at least one");
  EXPECT_EQ(MessageOf({1, 128}),
            "token 128 is outside the vocabulary; this model knows tokens 0 to 127");
  EXPECT_EQ(MessageOf({-1}),
            "token -1 is outside the vocabulary; this model knows tokens 0 to 127");
  EXPECT_EQ(MessageOf(std::vector<int32_t>(4097, 3)),
            "the sequence would reach 4097 tokens, and this model's limit "
            "(max_position_embeddings) is 4096; shorten the "
            "prompt or ask for fewer tokens");
  Session session(running_.model(), 100);
  session.Sync(std::vector<int32_t>{5, 9, 3});
  EXPECT_THROW(session.Sync(std::vector<int32_t>{5, 9, 3, 1000}), Error);
  EXPECT_EQ(session.Sync(std::vector<int32_t>{5, 9, 3, 4}), 3);
  EXPECT_EQ(Copy(session.logits()), LogitsOf({5, 9, 3, 4}));
}

}  // namespace
}  // namespace toaster
