#include "chat/write_conversation.h"

#include <fmt/format.h>

namespace toaster {
namespace {

JsonValue Boolean(bool value) {
  JsonValue json;
  json.kind = value ? JsonValue::Kind::kTrue : JsonValue::Kind::kFalse;
  return json;
}

JsonValue Array(std::vector<JsonValue> items) {
  JsonValue json;
  json.kind = JsonValue::Kind::kArray;
  json.items = std::move(items);
  return json;
}

JsonValue Function(JsonValue function) {
  JsonValue json = JsonValue::Object();
  json.Set("type", JsonValue::String("function"));
  json.Set("function", std::move(function));
  return json;
}

JsonValue CallJson(const ToolCall& call) {
  JsonValue function = JsonValue::Object();
  function.Set("name", JsonValue::String(call.name));
  function.Set("arguments", JsonValue::String(call.arguments));
  JsonValue json = Function(std::move(function));
  json.Set("id", JsonValue::String(call.id));
  return json;
}

JsonValue MessageJson(const Message& message) {
  JsonValue json = JsonValue::Object();
  json.Set("role", JsonValue::String(std::string(RoleName(message.role))));
  json.Set("content", JsonValue::String(message.content));
  if (!message.reasoning.empty())
    json.Set("reasoning_content", JsonValue::String(message.reasoning));
  if (!message.tool_calls.empty()) {
    std::vector<JsonValue> calls;
    for (const ToolCall& call : message.tool_calls) calls.push_back(CallJson(call));
    json.Set("tool_calls", Array(std::move(calls)));
  }
  if (message.role == Role::kTool)
    json.Set("tool_call_id", JsonValue::String(message.tool_call_id));
  if (!message.tools.empty()) {
    std::vector<JsonValue> tools;
    for (const JsonValue& tool : message.tools) tools.push_back(Function(tool));
    json.Set("tools", Array(std::move(tools)));
  }
  if (message.response_format) json.Set("response_format", *message.response_format);
  if (message.task) json.Set("task", JsonValue::String(std::string(TaskName(*message.task))));
  if (message.without_eos) json.Set("prefix", Boolean(true));
  return json;
}

}  // namespace

std::string WriteConversation(const Conversation& conversation) {
  std::string text = "{\n\"messages\": [";
  for (size_t i = 0; i < conversation.messages.size(); ++i) {
    text += i > 0 ? ",\n" : "\n";
    text += DumpPythonJson(MessageJson(conversation.messages[i]));
  }
  return text + fmt::format(
                    "\n],\n\"thinking\": {},\n\"reasoning_effort\": \"{}\",\n"
                    "\"keep_reasoning\": {}\n}}\n",
                    conversation.thinking, EffortName(conversation.effort),
                    conversation.keep_reasoning);
}

}  // namespace toaster
