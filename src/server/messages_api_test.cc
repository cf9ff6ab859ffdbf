#include "server/messages_api.h"

#include <gtest/gtest.h>

#include "server/test_replies.h"

namespace toaster {
namespace {

GenerationRequest Parse(std::string_view text) {
  return ParseMessagesRequest(ParseRequestBody(text), TestModel());
}

GenerationRequest With(std::string_view members) {
  return Parse(fmt::format(
      R"({{"max_tokens": 9, "messages": [{{"role": "user", "content": "a"}}], {}}})", members));
}

TEST(MessagesApiTest, BlocksBecomeMessages) {
  const GenerationRequest request = Parse(R"({"model": "claude-opus-4", "max_tokens": 5,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}},
              {"type": "web_search_20250305", "name": "web_search"}],
    "messages": [{"role": "user", "content": "q"},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "x"},
        {"type": "text", "text": "c"}, {"type": "tool_use", "id": "i", "name": "f",
        "input": {"n": 1.0, "a": "é"}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i",
        "content": [{"type": "text", "text": "r"}]}, {"type": "text", "text": "and"}]}],
    "stop_sequences": ["E"], "metadata": {"user_id": "any thing"}})");
  const std::vector<Message>& messages = request.conversation->messages;
  ASSERT_EQ(messages.size(), 5U);
  EXPECT_EQ(messages[0].content, "s");
  EXPECT_EQ(DumpPythonJson(messages[0].tools.at(0)),
            R"({"name": "f", "description": "d", "parameters": {"type": "object"}})");
  EXPECT_EQ(messages[2].reasoning, "t");
  EXPECT_EQ(messages[2].tool_calls.at(0).arguments, R"({"n": 1.0, "a": "é"})");
  EXPECT_EQ(messages[3].tool_call_id, "i");
  EXPECT_EQ(messages[3].content, "r");
  EXPECT_EQ(messages[4].content, "and");
  EXPECT_FALSE(request.conversation->thinking);
  EXPECT_EQ(request.max_tokens, 5);
  EXPECT_EQ(request.user_id, "any thing");
  EXPECT_EQ(request.notes.size(), 1U);
}

TEST(MessagesApiTest, ThinkingChoiceAndPrefill) {
  EXPECT_TRUE(With(R"("thinking": {"type": "enabled", "budget_tokens": 1024})").ReplyReasons());
  EXPECT_TRUE(With(R"("thinking": {"type": "adaptive"})").ReplyReasons());
  EXPECT_EQ(With(R"("output_config": {"effort": "max"})").conversation->effort, Effort::kMax);
  const GenerationRequest any = With(R"("tools": [{"name": "f", "input_schema": {}}],
      "tool_choice": {"type": "any", "disable_parallel_tool_use": true})");
  EXPECT_EQ(any.tool_choice, ToolChoice::kRequired);
  EXPECT_FALSE(any.parallel_calls);
  EXPECT_TRUE(Parse(R"({"max_tokens": 1, "messages": [{"role": "user", "content": "a"},
      {"role": "assistant", "content": "b"}]})")
                  .ContinuesAnswer());
}

TEST(MessagesApiTest, RefusalsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("max_tokens2": 1, "messages": [])", ""},
      {R"("temperature": 5)", "temperature"},
      {R"("stop_sequences": [0])", "stop_sequences[0]"},
      {R"("system": 5)", "system"},
      {R"("system": [{"type": "image"}])", "system[0].type"},
      {R"("tools": [{"name": "f"}])", "tools[0].input_schema"},
      {R"("tools": [{"input_schema": {}}])", "tools[0].name"},
      {R"("tools": {})", "tools"},
      {R"("tool_choice": "auto")", "tool_choice"},
      {R"("tool_choice": {"type": "all"})", "tool_choice.type"},
      {R"("mcp_servers": [{}])", "mcp_servers"},
      {R"("metadata": {"user_id": 3})", "metadata.user_id"},
      {R"("thinking": {"type": "some"})", "thinking.type"},
      {R"("model": "gpt-9")", "model"},
  };
  for (const auto& [members, param] : cases) {
    if (*param == '\0') continue;
    try {
      With(members);
      ADD_FAILURE() << "accepted: " << members;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.param(), param) << error.what();
    }
  }
  for (const char* body :
       {R"({"messages": [{"role": "user", "content": "a"}]})", R"({"max_tokens": 1})",
        R"({"max_tokens": 1, "messages": []})", R"({"max_tokens": 1, "messages": [1]})",
        R"({"max_tokens": 1, "messages": [{"role": "user"}]})",
        R"({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image"}]}]})"}) {
    EXPECT_THROW(Parse(body), ApiError) << body;
  }
  EXPECT_NO_THROW(ParseMessagesRequest(
      ParseRequestBody(R"({"messages": [{"role": "user", "content": "a"}]})"), TestModel(), true));
}

GenerationRequest ToolRequest() {
  return With(R"("thinking": {"type": "enabled"},
                 "tools": [{"name": "get_time", "input_schema": {"type": "object"}}])");
}

TEST(MessagesApiTest, AWholeMessageHasItsBlocks) {
  const Made made = MakeReply(ToolRequest(), kTwoCalls);
  const OrderedJson message =
      MakeMessagesWriter({}, {"msg_1", 0, "m"})->Whole({{made.reply}, {10, 4, 7, 2}, {}});
  ASSERT_EQ(message["content"].size(), 4U);
  EXPECT_EQ(message["content"][0]["thinking"], "need clock");
  EXPECT_EQ(message["content"][1]["text"], "One moment.");
  EXPECT_EQ(message["content"][2]["input"], OrderedJson::parse(R"({"zone": "Oslo"})"));
  EXPECT_EQ(message["stop_reason"], "tool_use");
  EXPECT_EQ(message["usage"]["input_tokens"], 6);
  EXPECT_EQ(message["usage"]["cache_read_input_tokens"], 4);
}

TEST(MessagesApiTest, AStreamOpensAndClosesEveryBlock) {
  const Made made = MakeReply(ToolRequest(), kTwoCalls);
  const std::vector<OrderedJson> events =
      Events(StreamOf(*MakeMessagesWriter({}, {"msg_1", 0, "m"}), made, {10, 4, 7, 2}));
  EXPECT_EQ(events.front()["type"], "message_start");
  EXPECT_EQ(events.back()["type"], "message_stop");
  std::vector<std::string> kinds, texts;
  bool open = false;
  for (const OrderedJson& event : events) {
    if (event["type"] == "content_block_start") {
      EXPECT_FALSE(open);
      open = true;
      EXPECT_EQ(event["index"], kinds.size());
      kinds.push_back(event["content_block"]["type"]);
      texts.emplace_back();
    } else if (event["type"] == "content_block_stop") {
      EXPECT_TRUE(open);
      open = false;
    } else if (event["type"] == "content_block_delta") {
      EXPECT_TRUE(open);
      for (const char* key : {"text", "thinking", "partial_json"})
        texts.back() += event["delta"].value(key, "");
    } else if (event["type"] == "message_delta") {
      EXPECT_EQ(event["delta"]["stop_reason"], "tool_use");
      EXPECT_EQ(event["usage"]["output_tokens"], 7);
    }
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{"thinking", "text", "tool_use", "tool_use"}));
  EXPECT_EQ(texts, (std::vector<std::string>{"need clock", "One moment.", R"({"zone": "Oslo"})",
                                             R"({"h24": true})"}));
}

TEST(MessagesApiTest, AStopSequenceIsNamed) {
  const Made made = MakeReply(With(R"("stop_sequences": ["END"])"), "so far END");
  const OrderedJson message = MakeMessagesWriter({}, {})->Whole({{made.reply}, {}, {}});
  EXPECT_EQ(message["stop_reason"], "stop_sequence");
  EXPECT_EQ(message["stop_sequence"], "END");
}

}  // namespace
}  // namespace toaster
