#include "server/responses_api.h"

#include <gtest/gtest.h>

#include "server/test_replies.h"

namespace toaster {
namespace {

std::optional<std::vector<Message>> FindNothing(const std::string&) { return std::nullopt; }

ResponsesRequest Parse(std::string_view text, const FindResponse& find = FindNothing) {
  return ParseResponsesRequest(ParseRequestBody(text), TestModel(), find);
}

TEST(ResponsesApiTest, ItemsBecomeMessages) {
  const ResponsesRequest request = Parse(R"({"instructions": "s", "input": [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
    {"role": "user", "content": "q"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "2", "name": "patch", "input": "a\nb"},
    {"type": "function_call_output", "call_id": "1", "output": "r"},
    {"type": "custom_tool_call_output", "call_id": "2", "output": "ok"}],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": false},
              {"type": "custom", "name": "patch", "format": {"type": "grammar", "definition": "G"}},
              {"type": "web_search"}],
    "reasoning": {"effort": "medium"}, "max_output_tokens": 3, "store": true})");
  const std::vector<Message>& messages = request.generation.conversation->messages;
  ASSERT_EQ(messages.size(), 6U);
  EXPECT_EQ(messages[0].content, "s");
  EXPECT_EQ(messages[0].tools.size(), 2U);
  EXPECT_EQ(messages[1].role, Role::kSystem);
  EXPECT_EQ(messages[3].reasoning, "t");
  EXPECT_EQ(messages[3].content, "c");
  ASSERT_EQ(messages[3].tool_calls.size(), 2U);
  EXPECT_EQ(messages[3].tool_calls[1].arguments, R"({"input": "a\nb"})");
  EXPECT_EQ(messages[5].tool_call_id, "2");
  EXPECT_EQ(request.to_keep.size(), 5U) << "instructions do not carry over";
  EXPECT_EQ(request.generation.notes.size(), 1U);
  EXPECT_EQ(request.generation.text_tools, std::vector<std::string>{"patch"});
  EXPECT_EQ(request.generation.max_tokens, 3);
  EXPECT_TRUE(request.generation.conversation->thinking);
}

TEST(ResponsesApiTest, AnEarlierResponseIsContinued) {
  const auto find = [](const std::string& id) -> std::optional<std::vector<Message>> {
    if (id != "resp_1") return std::nullopt;
    std::vector<Message> messages(2);
    messages[1].role = Role::kAssistant;
    return messages;
  };
  const ResponsesRequest request =
      Parse(R"({"previous_response_id": "resp_1", "input": "go on"})", find);
  EXPECT_EQ(request.generation.conversation->messages.size(), 3U);
  try {
    Parse(R"({"previous_response_id": "resp_2", "input": "go on"})", find);
    ADD_FAILURE();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 404);
  }
}

TEST(ResponsesApiTest, RefusalsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "input"},
      {R"({"input": 3})", "input"},
      {R"({"input": [3]})", "input[0]"},
      {R"({"input": [{"type": "image_generation_call"}]})", "input[0].type"},
      {R"({"input": [{"role": "user", "content": [{"type": "input_image"}]}]})",
       "input[0].content[0].type"},
      {R"({"input": [{"type": "function_call", "name": "f"}]})", "input[0].call_id"},
      {R"({"input": "a", "background": true})", "background"},
      {R"({"input": "a", "truncation": "auto"})", "truncation"},
      {R"({"input": "a", "tools": [{"type": "function"}]})", "tools[0].name"},
      {R"({"input": "a", "reasoning": {"effort": "huge"}})", "reasoning.effort"},
      {R"({"input": "a", "text": {"format": {"type": "json_schema", "schema": {}, "strict": true}}})",
       "text.format.strict"},
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

ResponsesRequest ToolRequest() {
  return Parse(R"({"input": "Time?", "tools": [{"type": "function", "name": "get_time"}]})");
}

TEST(ResponsesApiTest, AStreamEndsWithWhatTheWholeResponseHolds) {
  const ResponsesRequest request = ToolRequest();
  const Made made = MakeReply(request.generation, kTwoCalls);
  const Usage usage = {10, 4, 7, 2};
  const OrderedJson whole =
      MakeResponsesWriter(request, {"resp_1", 5, "m"})->Whole({{made.reply}, usage, {}});
  const std::vector<OrderedJson> events =
      Events(StreamOf(*MakeResponsesWriter(request, {"resp_1", 5, "m"}), made, usage));
  EXPECT_EQ(events.front()["type"], "response.created");
  EXPECT_EQ(events.back()["type"], "response.completed");
  std::map<std::string, std::string> deltas;
  std::vector<std::string> added, done;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["sequence_number"], i);
    const std::string type = events[i]["type"];
    if (events[i].contains("delta")) {
      deltas[fmt::format("{}", events[i]["output_index"].get<int>())] +=
          events[i]["delta"].get<std::string>();
    }
    if (type == "response.output_item.added") added.push_back(events[i]["item"]["id"]);
    if (type == "response.output_item.done") done.push_back(events[i]["item"]["id"]);
  }
  EXPECT_EQ(added.size(), 4U);
  EXPECT_EQ(added, done);
  EXPECT_EQ(deltas["0"], "need clock");
  EXPECT_EQ(deltas["1"], "One moment.");
  EXPECT_EQ(deltas["2"], R"({"zone": "Oslo"})");
  // Item ids are random; everything else is the same.
  OrderedJson streamed = events.back()["response"], expected = whole;
  ASSERT_EQ(expected["output"].size(), 4U);
  for (OrderedJson* response : {&streamed, &expected})
    for (OrderedJson& item : (*response)["output"]) item["id"] = "";
  EXPECT_EQ(streamed, expected);
  EXPECT_EQ(whole["output"][2]["name"], "get_time");
  EXPECT_EQ(whole["output"][0]["content"][0]["text"], "need clock");
  EXPECT_EQ(whole["usage"]["input_tokens_details"]["cached_tokens"], 4);
  EXPECT_EQ(whole["status"], "completed");
}

TEST(ResponsesApiTest, ATextToolGetsItsTextAsItIs) {
  const ResponsesRequest request =
      Parse(R"({"input": "x", "tools": [{"type": "custom", "name": "get_time"}]})");
  const Made made =
      MakeReply(request.generation,
                "t</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_time\">\n"
                "<｜DSML｜parameter name=\"input\" string=\"true\">a \"b\"</｜DSML｜parameter>\n"
                "</｜DSML｜invoke>\n</｜DSML｜tool_calls>");
  const OrderedJson whole = MakeResponsesWriter(request, {})->Whole({{made.reply}, {}, {}});
  EXPECT_EQ(whole["output"][1]["type"], "custom_tool_call");
  EXPECT_EQ(whole["output"][1]["input"], "a \"b\"");
  const std::string stream = StreamOf(*MakeResponsesWriter(request, {}), made, {});
  EXPECT_NE(stream.find("response.custom_tool_call_input.done"), std::string::npos);
  EXPECT_EQ(stream.find("function_call_arguments"), std::string::npos);
}

TEST(ResponsesApiTest, AReplyThatWasCutIsIncomplete) {
  const ResponsesRequest request = ToolRequest();
  const Made made = MakeReply(request.generation, "half a tho", ReplyEnd::kLength);
  const OrderedJson whole = MakeResponsesWriter(request, {})->Whole({{made.reply}, {}, {}});
  EXPECT_EQ(whole["status"], "incomplete");
  EXPECT_EQ(whole["incomplete_details"]["reason"], "max_output_tokens");
}

}  // namespace
}  // namespace toaster
