#include "server/completions_api.h"

#include <gtest/gtest.h>

#include "server/test_replies.h"

namespace toaster {
namespace {

GenerationRequest Parse(std::string_view text) {
  return ParseCompletionRequest(ParseRequestBody(text), TestModel());
}

TEST(CompletionsApiTest, PromptsComeInFourForms) {
  EXPECT_EQ(Parse(R"({"prompt": "a"})").prompts.at(0).text, "a");
  EXPECT_EQ(Parse(R"({"prompt": ["a", "b"]})").prompts.at(1).text, "b");
  EXPECT_EQ(Parse(R"({"prompt": [5, 6]})").prompts.at(0).tokens, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(Parse(R"({"prompt": [[5], [6, 7]]})").prompts.at(1).tokens,
            (std::vector<int32_t>{6, 7}));
  EXPECT_EQ(Parse(R"({"prompt": "a"})").max_tokens, 16);
  EXPECT_EQ(Parse(R"({"prompt": "a", "suffix": "z"})").suffix, "z");
}

TEST(CompletionsApiTest, RefusalsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "prompt"},
      {R"({"prompt": []})", "prompt"},
      {R"({"prompt": 5})", "prompt"},
      {R"({"prompt": [300]})", "prompt[0]"},
      {R"({"prompt": [[1], [-1]]})", "prompt[1][0]"},
      {R"({"prompt": ["a", 1]})", "prompt[1]"},
      {R"({"prompt": [1], "suffix": "x"})", "suffix"},
      {R"({"prompt": "a", "echo": 1})", "echo"},
      {R"({"prompt": "a", "echo": true, "logprobs": 1})", "echo"},
      {R"({"prompt": "a", "best_of": 3})", "best_of"},
      {R"({"prompt": "a", "logprobs": 21})", "logprobs"},
  };
  for (const auto& [body, param] : cases) {
    try {
      Parse(body);
      ADD_FAILURE() << "accepted: " << body;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.param(), param) << error.what();
    }
  }
}

TEST(CompletionsApiTest, MarkupIsNoMarkupInAPlainCompletion) {
  const GenerationRequest request = Parse(R"({"prompt": "a", "logprobs": 0, "stop": ["Z"]})");
  const Made made = MakeReply(request, "é <b>x", ReplyEnd::kLength, true);
  EXPECT_EQ(made.reply.content, "é <b>x");
  const OrderedJson response = MakeCompletionWriter(request, {})->Whole({{made.reply}, {}, {}});
  EXPECT_EQ(response["choices"][0]["text"], "é <b>x");
  EXPECT_EQ(response["choices"][0]["finish_reason"], "length");
  const OrderedJson& logprobs = response["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"].size(), 7U);
  EXPECT_EQ(logprobs["token_logprobs"][0], -0.5);
}

TEST(CompletionsApiTest, AStreamAddsUp) {
  const GenerationRequest request = Parse(R"({"prompt": "a", "stop": ["Z"]})");
  const Made made = MakeReply(request, "hello Z there");
  const std::vector<OrderedJson> events =
      Events(StreamOf(*MakeCompletionWriter(request, {}), made, {}));
  std::string text;
  for (const OrderedJson& event : events)
    if (event.is_object()) text += event["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "hello ");
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "stop");
}

}  // namespace
}  // namespace toaster
