#include "server/request_schemas.h"

#include <cstdint>
#include <utility>
#include <vector>

namespace toaster {
namespace {

struct Member {
  const char* name;
  OrderedJson schema;
  bool required = false;
};
using Members = std::vector<Member>;

OrderedJson Text() { return {{"type", "string"}}; }
OrderedJson Boolean() { return {{"type", "boolean"}}; }
OrderedJson AnyObject() { return {{"type", "object"}}; }
OrderedJson Anything() { return OrderedJson::object(); }
/// A field that has to be absent.
OrderedJson Refused() { return {{"type", "null"}}; }
/// A field that may say only this, because nothing else can be honoured.
OrderedJson Only(OrderedJson value) { return {{"enum", OrderedJson::array({std::move(value)})}}; }
OrderedJson Name(std::vector<const char*> names) {
  return {{"type", "string"}, {"enum", std::move(names)}};
}
OrderedJson Integer(int64_t least, int64_t most) {
  return {{"type", "integer"}, {"minimum", least}, {"maximum", most}};
}
OrderedJson Number(double least, double most) {
  return {{"type", "number"}, {"minimum", least}, {"maximum", most}};
}
OrderedJson List(OrderedJson items) { return {{"type", "array"}, {"items", std::move(items)}}; }
OrderedJson List(OrderedJson items, size_t most) {
  OrderedJson list = List(std::move(items));
  list["maxItems"] = most;
  return list;
}
OrderedJson OneOf(std::vector<OrderedJson> schemas) { return {{"oneOf", std::move(schemas)}}; }

/// The same, or null.
OrderedJson OrNull(OrderedJson schema) {
  if (schema.contains("oneOf")) {
    schema["oneOf"].push_back({{"type", "null"}});
  } else {
    if (schema.contains("type") && schema["type"] != "null")
      schema["type"] = OrderedJson::array({schema["type"], "null"});
    if (schema.contains("enum")) schema["enum"].push_back(nullptr);
  }
  return schema;
}

OrderedJson Object(Members members) {
  OrderedJson object = AnyObject();
  OrderedJson required = OrderedJson::array();
  for (Member& member : members) {
    if (member.required) required.push_back(member.name);
    object["properties"][member.name] =
        member.required ? std::move(member.schema) : OrNull(std::move(member.schema));
  }
  if (!required.empty()) object["required"] = std::move(required);
  return object;
}

Members Together(Members first, const Members& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

OrderedJson Stops(size_t most) { return OneOf({Text(), List(Text(), most)}); }

/// What ReadSampling() reads.
Members Sampling() {
  return {{"temperature", Number(0, 2)},
          {"top_p", Number(0, 1)},
          {"min_p", Number(0, 1)},
          {"top_k", Integer(-1, INT32_MAX)},
          {"presence_penalty", Number(-2, 2)},
          {"frequency_penalty", Number(-2, 2)},
          {"repetition_penalty", Number(0.01, 100)},
          {"seed", {{"type", "integer"}}}};
}

OrderedJson Thinking() {
  return OneOf({Boolean(), Object({{"type", Name({"enabled", "adaptive", "disabled"}), true}})});
}

OrderedJson Effort(bool none) {
  std::vector<const char*> names = {"minimal", "low", "medium", "high", "xhigh", "max", "ultra"};
  if (none) names.insert(names.begin(), "none");
  return Name(std::move(names));
}

OrderedJson UserId() {
  return {{"type", "string"}, {"maxLength", 512}, {"pattern", "^[A-Za-z0-9_-]*$"}};
}

OrderedJson StreamOptions() { return Object({{"include_usage", Boolean()}}); }

/// Nothing holds a reply to a grammar while it is sampled.
OrderedJson NotStrict() { return Only(false); }

/// What a function tool says, besides its type.
Members Function(const char* schema, bool schema_required) {
  return {{"name", {{"type", "string"}, {"minLength", 1}}, true},
          {"description", Text()},
          {schema, AnyObject(), schema_required},
          {"strict", NotStrict()}};
}

OrderedJson ChatMessage() {
  const OrderedJson part = Object({{"type", Name({"text"}), true}, {"text", Text()}});
  const OrderedJson content = OneOf({Text(), List(part)});
  const OrderedJson call = Object(
      {{"id", Text()},
       {"type", Text()},
       {"function", Object({{"name", Text(), true}, {"arguments", OneOf({Text(), AnyObject()})}}),
        true}});
  return OneOf({Object({{"role", Name({"system", "developer", "user", "latest_reminder"}), true},
                        {"content", content}}),
                Object({{"role", Name({"assistant"}), true},
                        {"content", content},
                        {"reasoning_content", Text()},
                        {"prefix", Boolean()},
                        {"tool_calls", List(call)}}),
                Object({{"role", Name({"tool"}), true},
                        {"content", OneOf({Text(), List(Object({{"type", Text()}}))})},
                        {"tool_call_id", Text()}})});
}

OrderedJson ResponseFormat() {
  return OneOf(
      {Object({{"type", Name({"text", "json_object"}), true}}),
       Object({{"type", Name({"json_schema"}), true},
               {"json_schema", Object({{"schema", AnyObject(), true}, {"strict", NotStrict()}}),
                true}})});
}

/// A choice by word, or by the name of a function.
OrderedJson ToolChoice(OrderedJson named) {
  return OneOf({Name({"none", "auto", "required"}), std::move(named)});
}

OrderedJson Example(const char* text) { return {{"value", OrderedJson::parse(text)}}; }

/// The members of a block of text.
OrderedJson TextBlock() { return Object({{"type", Name({"text"}), true}, {"text", Text(), true}}); }

OrderedJson AnthropicMessage() {
  const OrderedJson texts = OneOf({Text(), List(TextBlock())});
  const OrderedJson result = Object(
      {{"type", Name({"tool_result"}), true}, {"tool_use_id", Text(), true}, {"content", texts}});
  const OrderedJson thought =
      Object({{"type", Name({"thinking"}), true}, {"thinking", Text(), true}});
  const OrderedJson call = Object({{"type", Name({"tool_use"}), true},
                                   {"id", Text(), true},
                                   {"name", Text(), true},
                                   {"input", AnyObject(), true}});
  return OneOf(
      {Object({{"role", Name({"user"}), true},
               {"content", OneOf({Text(), List(OneOf({TextBlock(), result}))}), true}}),
       Object({{"role", Name({"assistant"}), true},
               {"content", OneOf({Text(), List(OneOf({TextBlock(), thought, call}))}), true}}),
       Object({{"role", Name({"system"}), true}, {"content", texts, true}})});
}

OrderedJson MessagesBody(bool counting) {
  const OrderedJson choice = OneOf({Object({{"type", Name({"auto", "any", "none"}), true},
                                            {"disable_parallel_tool_use", Boolean()}}),
                                    Object({{"type", Name({"tool"}), true},
                                            {"name", Text(), true},
                                            {"disable_parallel_tool_use", Boolean()}})});
  OrderedJson messages = List(AnthropicMessage());
  messages["minItems"] = 1;
  return Object(Together(
      {{"model", Text()},
       {"messages", messages, true},
       {"max_tokens", Integer(1, INT32_MAX), !counting},
       {"system", OneOf({Text(), List(TextBlock())})},
       {"tools", List(Object(Together({{"type", Text()}}, Function("input_schema", true))))},
       {"tool_choice", choice},
       {"thinking", Thinking()},
       {"output_config", Object({{"effort", Effort(false)}, {"format", Refused()}})},
       {"mcp_servers", List(Anything(), 0)},
       {"stop_sequences", Stops(64)},
       {"stream", Boolean()},
       {"metadata", Object({{"user_id", Text()}})}},
      Sampling()));
}

OrderedJson MessagesExamples() {
  return {{"question",
           Example(R"({"max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]})")},
          {"agent", Example(R"({"max_tokens": 20, "system": [{"type": "text", "text": "Be short."}],
            "thinking": {"type": "enabled"}, "output_config": {"effort": "high"},
            "metadata": {"user_id": "someone"}, "stop_sequences": ["END"], "mcp_servers": [],
            "tools": [{"type": "custom", "name": "weather", "description": "Tells it.", "strict": false,
                       "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
            "messages": [
              {"role": "system", "content": [{"type": "text", "text": "Hurry."}]},
              {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
              {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I look."}, {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}]},
              {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                                            "content": [{"type": "text", "text": "sunny"}]}]}]})")},
          {"forced call", Example(R"({"max_tokens": 20,
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": true},
            "messages": [{"role": "user", "content": "Weather?"}]})")}};
}

OrderedJson ResponsesItem() {
  const OrderedJson input =
      Object({{"type",
               Name({"input_text", "output_text", "text", "reasoning_text", "summary_text"}), true},
              {"text", Text(), true}});
  const OrderedJson content =
      OneOf({Text(), List(OneOf({input, Object({{"type", Name({"refusal"}), true},
                                                {"refusal", Text(), true}})}))});
  return OneOf({Object({{"type", Name({"message"})},
                        {"role", Name({"user", "assistant", "system", "developer"}), true},
                        {"content", content}}),
                Object({{"type", Name({"reasoning"}), true}, {"summary", content}}),
                Object({{"type", Name({"function_call"}), true},
                        {"call_id", Text(), true},
                        {"name", Text(), true},
                        {"arguments", Text(), true}}),
                Object({{"type", Name({"custom_tool_call"}), true},
                        {"call_id", Text(), true},
                        {"name", Text(), true},
                        {"input", Text(), true}}),
                Object({{"type", Name({"function_call_output", "custom_tool_call_output"}), true},
                        {"call_id", Text(), true},
                        {"output", content}})});
}

OrderedJson ResponsesTool() {
  return OneOf(
      {Object(Together({{"type", Name({"function"}), true}}, Function("parameters", false))),
       Object({{"type", Name({"custom"}), true},
               {"name", Text(), true},
               {"description", Text()},
               {"format", Object({{"definition", Text()}})}}),
       // Tools that the provider would run are left out, and the ledger says so.
       Object(
           {{"type", {{"type", "string"}, {"not", {{"enum", {"function", "custom"}}}}}, true}})});
}

}  // namespace

RequestSchema ChatSchema() {
  const OrderedJson tool = Object(
      {{"type", Name({"function"})}, {"function", Object(Function("parameters", false)), true}});
  OrderedJson template_options = Object({{"thinking", Boolean()}, {"enable_thinking", Boolean()}});
  template_options["additionalProperties"] = false;
  OrderedJson messages = List(ChatMessage());
  messages["minItems"] = 1;
  Members members = {
      {"model", Text()},
      {"messages", messages, true},
      {"tools", List(tool)},
      {"tool_choice", ToolChoice(Object({{"type", Name({"function"}), true},
                                         {"function", Object({{"name", Text(), true}}), true}}))},
      {"parallel_tool_calls", Boolean()},
      {"response_format", ResponseFormat()},
      {"thinking", Thinking()},
      {"reasoning_effort", Effort(true)},
      {"chat_template_kwargs", template_options},
      {"max_tokens", Integer(1, INT32_MAX)},
      {"max_completion_tokens", Integer(1, INT32_MAX)},
      {"stop", Stops(16)},
      {"logit_bias",
       {{"type", "object"},
        {"propertyNames", {{"pattern", "^[0-9]+$"}}},
        {"additionalProperties", OrNull(Number(-100, 100))}}},
      {"ignore_eos", Boolean()},
      {"n", Integer(1, 8)},
      {"logprobs", Boolean()},
      {"top_logprobs", Integer(0, 20)},
      {"stream", Boolean()},
      {"stream_options", StreamOptions()},
      {"user_id", UserId()},
      {"modalities", Only({"text"})},
      {"verbosity", Only("medium")},
      {"min_tokens", Only(0)}};
  for (const char* name :
       {"functions", "function_call", "audio", "web_search_options", "grammar", "guided_json",
        "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "json_schema"})
    members.push_back({name, Refused()});
  return {Object(Together(std::move(members), Sampling())),
          {{"question", Example(R"({"messages": [{"role": "user", "content": "Hi"}]})")},
           {"agent", Example(R"({"max_completion_tokens": 20, "thinking": {"type": "enabled"},
             "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it.",
                        "strict": false, "parameters": {"type": "object"}}}],
             "tool_choice": "auto", "stop": ["END"], "stream_options": {"include_usage": true},
             "chat_template_kwargs": {"thinking": true},
             "response_format": {"type": "json_schema",
                                 "json_schema": {"schema": {"type": "object"}, "strict": false}},
             "logprobs": true, "top_logprobs": 2, "logit_bias": {"5": -1},
             "messages": [
               {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
               {"role": "user", "content": "Weather?"},
               {"role": "assistant", "content": "Let me look.", "reasoning_content": "I look.",
                "tool_calls": [{"id": "call_1", "type": "function",
                                "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
               {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]}]})")},
           {"forced call", Example(R"({"max_tokens": 20, "response_format": {"type": "text"},
             "tools": [{"type": "function", "function": {"name": "weather"}}],
             "tool_choice": {"type": "function", "function": {"name": "weather"}},
             "messages": [{"role": "user", "content": "Weather?"}]})")}}};
}

RequestSchema CompletionSchema() {
  const OrderedJson tokens = {
      {"type", "array"}, {"items", {{"type", "integer"}, {"minimum", 0}}}, {"minItems", 1}};
  OrderedJson texts = List(OneOf({Text(), tokens}), 64);
  texts["minItems"] = 1;
  Members members = {{"model", Text()},
                     {"prompt", OneOf({Text(), tokens, texts}), true},
                     {"suffix", Text()},
                     {"echo", Boolean()},
                     {"max_tokens", Integer(1, INT32_MAX)},
                     {"stop", Stops(16)},
                     {"ignore_eos", Boolean()},
                     {"n", Integer(1, 8)},
                     {"best_of", Integer(1, 8)},
                     {"logprobs", Integer(0, 20)},
                     {"stream", Boolean()},
                     {"stream_options", StreamOptions()},
                     {"user_id", UserId()}};
  for (const char* name : {"grammar", "guided_json", "guided_regex", "guided_choice",
                           "guided_grammar", "structured_outputs", "json_schema", "logit_bias"})
    members.push_back({name, Only(OrderedJson::object())});
  return {Object(Together(std::move(members), Sampling())),
          {{"text", Example(R"({"prompt": "Once", "max_tokens": 5, "stop": ["END"],
                            "stream_options": {"include_usage": true}})")},
           {"texts", Example(R"({"prompt": ["Once", [5, 6]], "max_tokens": 5, "logprobs": 1})")},
           {"tokens", Example(R"({"prompt": [5, 6], "max_tokens": 5})")},
           {"fill in", Example(R"({"prompt": "Once", "suffix": "the end.", "max_tokens": 5})")}}};
}

RequestSchema MessagesSchema() { return {MessagesBody(/*counting=*/false), MessagesExamples()}; }
RequestSchema CountTokensSchema() { return {MessagesBody(/*counting=*/true), MessagesExamples()}; }

RequestSchema ResponsesSchema() {
  const OrderedJson format = OneOf({Object({{"type", Name({"text", "json_object"}), true}}),
                                    Object({{"type", Name({"json_schema"}), true},
                                            {"schema", AnyObject(), true},
                                            {"strict", NotStrict()}})});
  const Members members = {
      {"model", Text()},
      {"input", OneOf({Text(), List(ResponsesItem())}), true},
      {"instructions", Text()},
      {"previous_response_id", Text()},
      {"store", Boolean()},
      {"tools", List(ResponsesTool())},
      {"tool_choice",
       ToolChoice(Object({{"type", Name({"function", "custom"}), true}, {"name", Text(), true}}))},
      {"parallel_tool_calls", Boolean()},
      {"text", Object({{"format", format}, {"verbosity", Only("medium")}})},
      {"reasoning", Object({{"effort", Effort(true)}})},
      {"max_output_tokens", Integer(1, INT32_MAX)},
      {"top_logprobs", Integer(0, 0)},
      {"metadata", AnyObject()},
      {"stream", Boolean()},
      {"user_id", UserId()},
      {"background", Only(false)},
      {"truncation", Only("disabled")},
      {"conversation", Refused()},
      {"prompt", Refused()}};
  return {Object(Together(members, Sampling())),
          {{"question", Example(R"({"input": "Hi"})")},
           {"agent", Example(R"({"instructions": "Be short.", "max_output_tokens": 20,
             "tools": [{"type": "function", "name": "weather", "description": "Tells it.",
                        "parameters": {"type": "object"}, "strict": false},
                       {"type": "custom", "name": "write", "description": "Writes it.",
                        "format": {"type": "grammar", "definition": "start: /.+/"}},
                       {"type": "web_search"}],
             "tool_choice": "auto", "reasoning": {"effort": "high"},
             "text": {"format": {"type": "json_schema", "schema": {"type": "object"}, "strict": false}},
             "input": [
               {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
               {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
               {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
               {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
               {"type": "message", "role": "assistant",
                "content": [{"type": "refusal", "refusal": "I won't say."}]},
               {"type": "custom_tool_call", "call_id": "call_2", "name": "write", "input": "sunny"},
               {"type": "custom_tool_call_output", "call_id": "call_2",
                "output": [{"type": "output_text", "text": "written"}]}]})")},
           {"forced call", Example(R"({"input": "Weather?", "text": {"format": {"type": "text"}},
             "tools": [{"type": "function", "name": "weather"}],
             "tool_choice": {"type": "function", "name": "weather"}})")}}};
}

RequestSchema TokenizeSchema() {
  RequestSchema chat = ChatSchema();
  const auto text = [](const char* name) {
    OrderedJson schema = Object({{name, Text(), true}, {"parse_special", Boolean()}});
    schema["properties"]["messages"] = Refused();
    return schema;
  };
  OrderedJson examples = {{"content", Example(R"({"content": "Hi", "parse_special": true})")},
                          {"prompt", Example(R"({"prompt": "Hi"})")},
                          {"messages", chat.examples["agent"]}};
  return {{{"anyOf", {text("content"), text("prompt"), std::move(chat.schema)}}},
          std::move(examples)};
}

RequestSchema DetokenizeSchema() {
  return {Object({{"tokens", List({{"type", "integer"}, {"minimum", 0}}), true}}),
          {{"tokens", Example(R"({"tokens": [72, 105]})")}}};
}

}  // namespace toaster
