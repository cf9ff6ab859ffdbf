#include "server/chat_api.h"

#include <gtest/gtest.h>

#include "server/test_replies.h"

namespace toaster {
namespace {

GenerationRequest Parse(std::string_view text) {
  return ParseChatRequest(ParseRequestBody(text), TestModel());
}

/// The error that a request of one user message with these further members brings.
ApiError Refusal(std::string_view members) {
  try {
    Parse(fmt::format(R"({{"messages": [{{"role": "user", "content": "json?"}}], {}}})", members));
  } catch (const ApiError& error) {
    return error;
  }
  ADD_FAILURE() << "accepted: " << members;
  return ApiError(0, "", "");
}

TEST(ChatApiTest, AMinimalRequestThinksAndSamplesAsTheModelCardSays) {
  const GenerationRequest request = Parse(R"({"messages": [{"role": "user", "content": "Hi"}]})");
  ASSERT_TRUE(request.conversation);
  EXPECT_EQ(request.conversation->messages.at(0).content, "Hi");
  EXPECT_TRUE(request.conversation->thinking);
  EXPECT_TRUE(request.ReplyReasons());
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.top_p, 1);
  EXPECT_FALSE(request.max_tokens);
  EXPECT_FALSE(request.stream);
  EXPECT_EQ(request.logprobs, -1);
}

TEST(ChatApiTest, EveryFieldArrives) {
  const GenerationRequest request = Parse(R"({
    "model": "toaster-test", "messages": [{"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "thinking": {"type": "enabled"}, "reasoning_effort": "xhigh", "temperature": 0.5, "top_p": 0.9,
    "top_k": -1, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -1, "seed": 7,
    "logit_bias": {"17": -100}, "max_completion_tokens": 9, "max_tokens": 5, "stop": ["x", "y"],
    "n": 2, "logprobs": true, "top_logprobs": 3, "stream": true, "parallel_tool_calls": false,
    "stream_options": {"include_usage": true}, "user_id": "me-1", "somebody_elses_field": [1]})");
  EXPECT_EQ(request.conversation->messages.at(0).role, Role::kSystem);
  EXPECT_EQ(request.conversation->messages.at(1).content, "a\n\nb");
  EXPECT_EQ(request.conversation->effort, Effort::kMax);
  EXPECT_FLOAT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.sampling.logit_bias.at(17), -100);
  EXPECT_EQ(request.seed, 7U);
  EXPECT_EQ(request.max_tokens, 9);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(request.choices, 2);
  EXPECT_EQ(request.logprobs, 3);
  EXPECT_TRUE(request.stream && request.include_usage);
  EXPECT_FALSE(request.parallel_calls);
  EXPECT_EQ(request.user_id, "me-1");
}

TEST(ChatApiTest, RefusalsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("temperature": "hot")", "temperature"},
      {R"("temperature": 3)", "temperature"},
      {R"("top_p": 1e999)", ""},
      {R"("max_tokens": 0)", "max_tokens"},
      {R"("max_tokens": 1.5)", "max_tokens"},
      {R"("stop": [1])", "stop[0]"},
      {R"("stop": {"a": 1})", "stop"},
      {R"("n": 99)", "n"},
      {R"("logprobs": 3)", "logprobs"},
      {R"("top_logprobs": 3)", "top_logprobs"},
      {R"("logit_bias": {"300": 1})", "logit_bias.300"},
      {R"("logit_bias": {"x": 1})", "logit_bias.x"},
      {R"("stream_options": 1)", "stream_options"},
      {R"("stream": "yes")", "stream"},
      {R"("user_id": "a b")", "user_id"},
      {R"("thinking": {"type": "maybe"})", "thinking.type"},
      {R"("reasoning_effort": "huge")", "reasoning_effort"},
      {R"("tools": [{"type": "function"}])", "tools[0].function"},
      {R"("tools": [{"function": {"name": "f", "strict": true}}])", "tools[0].function.strict"},
      {R"("tools": [{"function": {"description": "f"}}])", "tools[0].function.name"},
      {R"("tool_choice": "sometimes")", "tool_choice"},
      {R"("tool_choice": "required")", "tool_choice"},
      {R"("functions": [])", "functions"},
      {R"("guided_json": {})", "guided_json"},
      {R"("verbosity": "low")", "verbosity"},
      {R"("response_format": {"type": "xml"})", "response_format.type"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": true}})",
       "response_format.json_schema.strict"},
      {R"("chat_template_kwargs": {"x": 1})", "chat_template_kwargs.x"},
  };
  for (const auto& [members, param] : cases) {
    const ApiError error = Refusal(members);
    EXPECT_EQ(error.status(), 400) << members;
    EXPECT_EQ(error.param(), param) << members << ": " << error.what();
  }
  const ApiError other = Refusal(R"("model": "gpt-9")");
  EXPECT_EQ(other.status(), 404);
  EXPECT_EQ(other.code, "model_not_found");
}

TEST(ChatApiTest, BodiesThatAreNoRequestAreRefused) {
  for (const char* body :
       {"", "[", "[]", "1", "\"x\"", "{\"messages\": 3}", "{}", R"({"messages": []})",
        R"({"messages": [3]})", R"({"messages": [{"role": "user", "content": 3}]})",
        R"({"messages": [{"role": "judge", "content": ""}]})",
        R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
        R"({"messages": [{"role": "user", "content": "a"},
                                            {"role": "assistant", "content": "b"}]})"}) {
    EXPECT_THROW(Parse(body), ApiError) << body;
  }
  EXPECT_THROW(Parse(std::string(100000, '[')), ApiError);
}

TEST(ChatApiTest, ThinkingAndToolChoice) {
  const auto with = [](std::string_view members) {
    return Parse(fmt::format(
        R"({{"messages": [{{"role": "user", "content": "a"}}],
             "tools": [{{"type": "function", "function": {{"name": "f"}}}}], {}}})",
        members));
  };
  EXPECT_FALSE(with(R"("thinking": {"type": "disabled"})").ReplyReasons());
  EXPECT_FALSE(with(R"("reasoning_effort": "none")").ReplyReasons());
  EXPECT_EQ(with(R"("reasoning_effort": "medium")").conversation->effort, Effort::kHigh);
  EXPECT_FALSE(with(R"("chat_template_kwargs": {"enable_thinking": false})").ReplyReasons());
  const GenerationRequest required = with(R"("tool_choice": "required")");
  EXPECT_EQ(required.tool_choice, ToolChoice::kRequired);
  EXPECT_FALSE(required.conversation->thinking);
  const GenerationRequest named =
      with(R"("tool_choice": {"type": "function", "function": {"name": "f"}})");
  EXPECT_EQ(named.tool_name, "f");
  EXPECT_TRUE(with(R"("tool_choice": "none")").conversation->messages.at(0).tools.empty());
  EXPECT_THROW(with(R"("tool_choice": "required", "thinking": {"type": "enabled"})"), ApiError);
}

TEST(ChatApiTest, AnAnswerCanBeContinued) {
  const GenerationRequest request = Parse(R"({"messages": [{"role": "user", "content": "a"},
      {"role": "assistant", "content": "b", "reasoning_content": "r", "prefix": true}]})");
  EXPECT_TRUE(request.ContinuesAnswer());
  EXPECT_FALSE(request.ReplyReasons());
}

GenerationRequest ToolRequest(std::string_view members = "\"n\": 1") {
  return Parse(fmt::format(R"({{"messages": [{{"role": "user", "content": "Time?"}}],
       "tools": [{{"type": "function", "function": {{"name": "get_time"}}}}], {}}})",
                           members));
}

TEST(ChatApiTest, AWholeResponseHasReasoningCallsAndUsage) {
  const GenerationRequest request = ToolRequest();
  const Made made = MakeReply(request, kTwoCalls);
  Outcome outcome = {{made.reply}, {10, 4, made.reply.tokens, made.reply.reasoning_tokens}, {}};
  outcome.ledger = {{"cost", 1}};
  const OrderedJson response =
      MakeChatWriter(request, {"chatcmpl-1", 5, "toaster-test"})->Whole(outcome);
  const OrderedJson& choice = response["choices"][0];
  EXPECT_EQ(response["object"], "chat.completion");
  EXPECT_EQ(choice["message"]["reasoning_content"], "need clock");
  EXPECT_EQ(choice["message"]["content"], "One moment.");
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 2U);
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"zone": "Oslo"})");
  EXPECT_EQ(choice["message"]["tool_calls"][1]["function"]["arguments"], R"({"h24": true})");
  EXPECT_NE(choice["message"]["tool_calls"][0]["id"], choice["message"]["tool_calls"][1]["id"]);
  EXPECT_EQ(response["usage"]["prompt_cache_hit_tokens"], 4);
  EXPECT_EQ(response["usage"]["prompt_cache_miss_tokens"], 6);
  EXPECT_EQ(response["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
  EXPECT_EQ(response["usage"]["completion_tokens_details"]["reasoning_tokens"], 10);
  EXPECT_EQ(response["toaster"]["cost"], 1);
}

TEST(ChatApiTest, AStreamAddsUpToTheWholeResponse) {
  const GenerationRequest request =
      ToolRequest(R"("stream": true, "stream_options": {"include_usage": true})");
  const Made made = MakeReply(request, kTwoCalls);
  const auto writer = MakeChatWriter(request, {"chatcmpl-1", 5, "toaster-test"});
  std::string stream = writer->Begin(10);
  for (const ReplyPiece& piece : made.pieces) stream += writer->Piece(0, piece);
  stream += writer->End({{made.reply}, {10, 4, made.reply.tokens, 10}, {}});
  std::string reasoning, content, finish;
  std::vector<std::string> ids, names, arguments;
  int64_t usages = 0;
  const std::vector<OrderedJson> events = Events(stream);
  EXPECT_EQ(events.back(), "[DONE]");
  for (const OrderedJson& event : events) {
    if (event.is_string()) continue;
    if (event["usage"].is_object()) ++usages;
    if (event["choices"].empty()) continue;
    const OrderedJson& choice = event["choices"][0];
    const OrderedJson& delta = choice["delta"];
    reasoning += delta.value("reasoning_content", "");
    content += delta.value("content", "");
    if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
    if (!delta.contains("tool_calls")) continue;
    ASSERT_TRUE(delta["tool_calls"].is_array());
    const OrderedJson& call = delta["tool_calls"][0];
    const size_t index = call["index"];
    if (call.contains("id")) {
      ASSERT_EQ(index, ids.size());
      ids.push_back(call["id"]);
      names.push_back(call["function"]["name"]);
      arguments.emplace_back();
    }
    arguments.at(index) += call["function"]["arguments"].get<std::string>();
  }
  EXPECT_EQ(reasoning, made.reply.reasoning);
  EXPECT_EQ(content, made.reply.content);
  EXPECT_EQ(finish, "tool_calls");
  EXPECT_EQ(ids, made.reply.call_ids);
  EXPECT_EQ(names, (std::vector<std::string>{"get_time", "get_time"}));
  EXPECT_EQ(arguments, (std::vector<std::string>{made.reply.calls[0].arguments,
                                                 made.reply.calls[1].arguments}));
  EXPECT_EQ(usages, 1);
}

TEST(ChatApiTest, StopStringsEndTheAnswerButNotTheReasoning) {
  const GenerationRequest request =
      Parse(R"({"messages": [{"role": "user", "content": "a"}], "stop": "END"})");
  const Made made = MakeReply(request, "not END yet</think>answer END more");
  EXPECT_EQ(made.reply.reasoning, "not END yet");
  EXPECT_EQ(made.reply.content, "answer ");
  EXPECT_EQ(made.reply.stop_string, "END");
  EXPECT_EQ(made.reply.finish, FinishReason::kStop);
}

TEST(ChatApiTest, OneCallIsTheLastWhereCallsMayNotBeParallel) {
  const Made made = MakeReply(ToolRequest(R"("parallel_tool_calls": false)"), kTwoCalls);
  EXPECT_EQ(made.reply.calls.size(), 1U);
  EXPECT_EQ(made.reply.finish, FinishReason::kToolCalls);
}

TEST(ChatApiTest, AReplyThatWasCutSaysSo) {
  const Made made =
      MakeReply(ToolRequest(), std::string_view(kTwoCalls).substr(0, 120), ReplyEnd::kLength);
  EXPECT_EQ(made.reply.finish, FinishReason::kLength);
}

TEST(ChatApiTest, LogProbabilitiesCoverReasoningAndAnswer) {
  const GenerationRequest request =
      Parse(R"({"messages": [{"role": "user", "content": "a"}], "logprobs": true})");
  const Made made = MakeReply(request, "ab</think>cde", ReplyEnd::kStop, true);
  EXPECT_EQ(made.reply.reasoning_logprobs.size(), 2U);
  EXPECT_EQ(made.reply.content_logprobs.size(), 3U);
  const OrderedJson response = MakeChatWriter(request, {})->Whole({{made.reply}, {}, {}});
  const OrderedJson& logprobs = response["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["content"][2]["token"], "e");
  EXPECT_EQ(logprobs["content"][2]["bytes"], OrderedJson::array({101}));
  EXPECT_EQ(logprobs["reasoning_content"].size(), 2U);
}

TEST(ApiErrorTest, BodiesHaveTheShapeOfTheirProtocol) {
  const ApiError error =
      ApiError::From(Error(ErrorCode::kInvalidArgument, "messages[3].content: has to be a string"));
  EXPECT_EQ(error.param(), "messages[3].content");
  EXPECT_EQ(ErrorBody(Protocol::kOpenAi, error)["error"]["param"], "messages[3].content");
  EXPECT_EQ(ErrorBody(Protocol::kAnthropic, error)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(ApiError::From(Error(ErrorCode::kIo, "disk: gone")).status(), 500);
}

}  // namespace
}  // namespace toaster
