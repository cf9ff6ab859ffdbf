#include "train/training_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kVocabulary = 512;

class TrainingDataTest : public ::testing::Test {
 protected:
  TrainingData Read(const std::string& name, const std::string& text, int64_t longest = 1000) {
    test::WriteFile(folder_.path() / name, text);
    return TrainingData::Read({folder_.path() / name}, tokenizer_, texts_, longest);
  }
  std::string Text(const Document& document) { return tokenizer_.Decode(document.tokens); }
  // What of a document is to be learned.
  std::string Wanted(const Document& document) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < document.tokens.size(); ++i)
      if (document.wanted.empty() || document.wanted[i]) tokens.push_back(document.tokens[i]);
    return tokenizer_.Decode(tokens);
  }

  const test::TemporaryDirectory folder_;
  const Tokenizer tokenizer_ = Tokenizer::Bytes(kVocabulary);
  const PromptTexts texts_{"none"};
  const std::string bos_{kBosToken}, eos_{kEosToken}, end_think_{kEndThinkToken};
};

TEST_F(TrainingDataTest, CutsTextAtSeparatorsAndAtTheLimit) {
  const TrainingData data =
      Read("a.txt", "one\ntwo\n<|endoftext|>\n<|endoftext|>\nnot <|endoftext|> here\n");
  ASSERT_EQ(data.documents(), 2);
  EXPECT_EQ(Text(data.At(0)), bos_ + "one\ntwo\n" + eos_);
  EXPECT_EQ(Text(data.At(1)), bos_ + "not <|endoftext|> here\n" + eos_);
  EXPECT_EQ(Wanted(data.At(1)), Text(data.At(1)));

  const TrainingData cut = Read("b.txt", "abcdefg", 4);  // with both ends nine tokens: 4, 4 and 1
  ASSERT_EQ(cut.documents(), 2);
  EXPECT_EQ(Text(cut.At(1)), "defg");
}

TEST_F(TrainingDataTest, LearnsWhatTheAssistantSays) {
  const TrainingData data = Read(
      "c.jsonl",
      R"({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, )"
      R"({"role": "user", "content": "C"}, {"role": "assistant", "content": "D"}]})");
  // The second turn's prompt begins with the first turn, so it is one document.
  ASSERT_EQ(data.documents(), 1);
  const std::string user{kUserToken}, assistant{kAssistantToken};
  EXPECT_EQ(Text(data.At(0)), bos_ + user + "A" + assistant + end_think_ + "B" + eos_ + user + "C" +
                                  assistant + end_think_ + "D" + eos_);
  EXPECT_EQ(Wanted(data.At(0)), "B" + eos_ + "D" + eos_);
}

TEST_F(TrainingDataTest, ATurnWhosePromptDropsReasoningIsADocumentOfItsOwn) {
  const TrainingData data =
      Read("c.jsonl", R"({"thinking": true, "messages": [{"role": "user", "content": "A"}, )"
                      R"({"role": "assistant", "reasoning_content": "r", "content": "B"}, )"
                      R"({"role": "user", "content": "C"}, )"
                      R"({"role": "assistant", "reasoning_content": "s", "content": "D"}]})");
  ASSERT_EQ(data.documents(), 2);
  EXPECT_EQ(Wanted(data.At(0)), "r" + end_think_ + "B" + eos_);
  EXPECT_EQ(Wanted(data.At(1)), "s" + end_think_ + "D" + eos_);
  EXPECT_THAT(Text(data.At(1)), ::testing::Not(HasSubstr("r" + end_think_)));
}

TEST_F(TrainingDataTest, SkipsBlankLinesAndNamesBadOnes) {
  const TrainingData data = Read("d.jsonl", "{\"text\": \"x\"}\n \n{\"text\": \"y\"}");
  EXPECT_EQ(data.documents(), 2);
  for (const char* bad :
       {"{\"text\": 1}", "{", "{\"messages\": [{\"role\": \"user\", \"content\": \"A\"}]}",
        "{\"messages\": 3}"}) {
    try {
      Read("bad.jsonl", std::string("{\"text\": \"x\"}\n") + bad);
      ADD_FAILURE() << "accepted " << bad;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("bad.jsonl:2: ")) << bad;
    }
  }
  EXPECT_THROW(TrainingData::Read({folder_.path() / "nowhere"}, tokenizer_, texts_, 10), Error);
}

TEST_F(TrainingDataTest, BatchesHoldEveryDocumentOnceAnEpoch) {
  TrainingData data;
  for (int32_t i = 0; i < 50; ++i) {
    const std::vector<int32_t> tokens(static_cast<size_t>(2 + i % 7), i);
    data.Add(tokens, {});
  }
  DataPosition position;
  std::vector<int32_t> first_order, order;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    order.clear();
    while (order.size() < 50) {
      const std::vector<Document> batch = data.NextBatch(position, 12, 3);
      int64_t tokens = 0;
      for (const Document& document : batch) {
        order.push_back(document.tokens[0]);
        tokens += static_cast<int64_t>(document.tokens.size());
      }
      EXPECT_LE(tokens, 12);
      EXPECT_EQ(position.epoch, epoch);
    }
    EXPECT_EQ(std::set<int32_t>(order.begin(), order.end()).size(), 50u);
    if (epoch == 0) first_order = order;
  }
  EXPECT_NE(first_order, order);
  // A position alone says what comes.
  DataPosition again{1, 7}, same{1, 7};
  EXPECT_EQ(data.NextBatch(again, 12, 3)[0].tokens[0], order[7]);
  TrainingData copy = data;
  copy.NextBatch(same, 12, 3);
  EXPECT_EQ(again, same);
}

TEST_F(TrainingDataTest, ADocumentBeyondTheBatchStandsAlone) {
  TrainingData data;
  data.Add(std::vector<int32_t>(30, 1), {});
  data.Add(std::vector<int32_t>(30, 2), {});
  DataPosition position;
  EXPECT_EQ(data.NextBatch(position, 10, 0).size(), 1u);
}

TEST_F(TrainingDataTest, SetsAsideByContent) {
  TrainingData forward, backward;
  for (int32_t i = 0; i < 200; ++i) forward.Add(std::vector<int32_t>{i, i + 1}, {});
  for (int32_t i = 199; i >= 0; --i) backward.Add(std::vector<int32_t>{i, i + 1}, {});
  const auto firsts = [](const TrainingData& data) {
    std::set<int32_t> found;
    for (int64_t i = 0; i < data.documents(); ++i) found.insert(data.At(i).tokens[0]);
    return found;
  };
  const TrainingData a = forward.SetAside(0.2), b = backward.SetAside(0.2);
  EXPECT_EQ(firsts(a), firsts(b));
  EXPECT_EQ(a.documents() + forward.documents(), 200);
  // Binomial with 200 and 0.2: 40, deviation 5.7; five deviations.
  EXPECT_NEAR(static_cast<double>(a.documents()), 40, 29);
  EXPECT_EQ(forward.SetAside(0).documents(), 0);
}

}  // namespace
}  // namespace toaster
