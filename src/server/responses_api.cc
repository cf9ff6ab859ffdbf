#include "server/responses_api.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/api_error.h"

namespace toaster {
namespace {

constexpr int64_t kMostAlternatives = 20;

/// The one argument of a tool of type "custom".
constexpr const char* kTextArgument = "input";

/// A text, or a list of parts that are texts.
std::string ReadContent(const RequestFields& item, std::string_view key) {
  const JsonValue* value = item.Find(key);
  if (!value) return "";
  if (value->is_string()) return value->text;
  if (!value->is_array()) item.Fail(key, "has to be a text or a list of parts");
  std::string text;
  for (size_t i = 0; i < value->items.size(); ++i) {
    const RequestFields part(value->items[i], fmt::format("{}[{}]", item.Path(key), i));
    const std::string type = part.RequireString("type");
    if (type == "refusal") {
      text += part.RequireString("refusal");
      continue;
    }
    if (type != "input_text" && type != "output_text" && type != "text" &&
        type != "reasoning_text" && type != "summary_text") {
      part.Fail("type", fmt::format("parts of type {} are not supported; send text",
                                    DumpPythonString(type.substr(0, 60))));
    }
    if (i > 0) text += "\n\n";
    text += part.RequireString("text");
  }
  return text;
}

/// Makes messages of the items of `input`: reasoning, text and calls that follow one another are
/// one message of the assistant.
class InputReader {
 public:
  explicit InputReader(std::vector<Message>& messages) : messages_(messages) {}

  void Read(const RequestFields& item) {
    const std::string type = item.String("type").value_or("message");
    if (type == "message") {
      ReadMessage(item);
    } else if (type == "reasoning") {
      Message& message = Assistant(/*fresh=*/true);
      message.reasoning += ReadContent(item, item.Find("content") ? "content" : "summary");
    } else if (type == "function_call" || type == "custom_tool_call") {
      ToolCall& call = Assistant(false).tool_calls.emplace_back();
      call.id = item.RequireString("call_id");
      call.name = item.RequireString("name");
      if (type == "function_call") {
        call.arguments = item.RequireString("arguments");
      } else {
        call.arguments = fmt::format("{{\"{}\": {}}}", kTextArgument,
                                     DumpPythonString(item.RequireString("input")));
      }
    } else if (type == "function_call_output" || type == "custom_tool_call_output") {
      Message& message = messages_.emplace_back();
      message.role = Role::kTool;
      message.tool_call_id = item.RequireString("call_id");
      message.content = ReadContent(item, "output");
    } else {
      item.Fail("type", fmt::format("items of type {} are not supported",
                                    DumpPythonString(type.substr(0, 60))));
    }
  }

 private:
  void ReadMessage(const RequestFields& item) {
    const std::string role = item.RequireString("role");
    std::string content = ReadContent(item, "content");
    if (role == "assistant") {
      Message& message = Assistant(false);
      message.content += content;
      return;
    }
    Message& message = messages_.emplace_back();
    message.content = std::move(content);
    if (role == "system" || role == "developer") {
      message.role = Role::kSystem;
    } else if (role != "user") {
      item.Fail("role", "is none of user, assistant, system, developer");
    }
  }

  /// The assistant's message that is being put together. Reasoning after anything else begins
  /// another one.
  Message& Assistant(bool fresh) {
    const bool open = !messages_.empty() && messages_.back().role == Role::kAssistant;
    const bool said =
        open && (!messages_.back().content.empty() || !messages_.back().tool_calls.empty());
    if (!open || (fresh && said)) messages_.emplace_back().role = Role::kAssistant;
    return messages_.back();
  }

  std::vector<Message>& messages_;
};

JsonValue TextToolSchema(const RequestFields& tool) {
  JsonValue function = JsonValue::Object();
  function.Set("name", JsonValue::String(tool.RequireString("name")));
  std::string description = tool.String("description").value_or("");
  if (const JsonValue* format = tool.Find("format")) {
    const RequestFields inner(*format, tool.Path("format"));
    if (const auto definition = inner.String("definition"))
      description += "\n\nThe input follows this grammar:\n" + *definition;
  }
  function.Set("description", JsonValue::String(description));
  function.Set(
      "parameters",
      ParsePythonJson(fmt::format(R"({{"type": "object", "properties": {{"{0}": {{"type": )"
                                  R"("string"}}}}, "required": ["{0}"]}})",
                                  kTextArgument),
                      "the schema of a text tool"));
  return function;
}

std::vector<JsonValue> ReadTools(const RequestFields& fields, GenerationRequest& request) {
  std::vector<JsonValue> functions;
  const std::vector<JsonValue>* tools = fields.List("tools");
  if (!tools) return functions;
  for (size_t i = 0; i < tools->size(); ++i) {
    const RequestFields tool((*tools)[i], fmt::format("tools[{}]", i));
    const std::string type = tool.RequireString("type");
    if (type == "custom") {
      functions.push_back(TextToolSchema(tool));
      request.text_tools.push_back(tool.RequireString("name"));
    } else if (type != "function") {
      request.notes.push_back(
          fmt::format("tools[{}], which the provider would run, was left out", i));
    } else {
      JsonValue& function = functions.emplace_back(JsonValue::Object());
      function.Set("name", JsonValue::String(tool.RequireString("name")));
      if (const auto description = tool.String("description"))
        function.Set("description", JsonValue::String(*description));
      if (const JsonValue* schema = tool.Find("parameters")) function.Set("parameters", *schema);
      if (tool.Boolean("strict").value_or(false)) {
        tool.Fail("strict",
                  "arguments are not held to their schema while sampling; send false and check "
                  "them");
      }
    }
  }
  return functions;
}

void ReadToolChoice(const RequestFields& fields, GenerationRequest& request) {
  const JsonValue* value = fields.Find("tool_choice");
  if (!value) return;
  if (value->is_string()) {
    if (value->text == "required") {
      request.tool_choice = ToolChoice::kRequired;
    } else if (value->text == "none") {
      request.tool_choice = ToolChoice::kNone;
    } else if (value->text != "auto") {
      fields.Fail("tool_choice", "is none of none, auto, required, or a function by name");
    }
    return;
  }
  const RequestFields choice(*value, "tool_choice");
  const std::string type = choice.RequireString("type");
  if (type != "function" && type != "custom")
    choice.Fail("type", "only choices of type function and custom are known");
  request.tool_choice = ToolChoice::kNamed;
  request.tool_name = choice.RequireString("name");
}

void ReadTextFormat(const RequestFields& fields, Conversation& conversation) {
  const JsonValue* text = fields.Find("text");
  if (!text) return;
  const RequestFields inner(*text, "text");
  inner.Refuse("verbosity", "this model has no levels of verbosity; ask for them in words",
               "\"medium\"");
  const JsonValue* value = inner.Find("format");
  if (!value) return;
  const RequestFields format(*value, "text.format");
  const std::string type = format.RequireString("type");
  if (type == "text" || type == "json_object") return;
  if (type != "json_schema") format.Fail("type", "is none of text, json_object, json_schema");
  if (format.Boolean("strict").value_or(false)) {
    format.Fail("strict",
                "the model is shown the schema, but not held to it while sampling; send false and "
                "check the answer");
  }
  const JsonValue& schema = format.Require("schema");
  if (!schema.is_object()) format.Fail("schema", "has to be an object");
  SystemMessage(conversation).response_format = schema;
}

OrderedJson ToOrderedJson(const JsonValue* value, OrderedJson missing) {
  return value ? OrderedJson::parse(DumpPythonJson(*value)) : std::move(missing);
}

OrderedJson EchoedSettings(const RequestFields& fields) {
  const JsonValue* text = fields.Find("text");
  return {{"instructions", ToOrderedJson(fields.Find("instructions"), nullptr)},
          {"max_output_tokens", ToOrderedJson(fields.Find("max_output_tokens"), nullptr)},
          {"metadata", ToOrderedJson(fields.Find("metadata"), OrderedJson::object())},
          {"parallel_tool_calls", fields.Boolean("parallel_tool_calls").value_or(true)},
          {"previous_response_id", ToOrderedJson(fields.Find("previous_response_id"), nullptr)},
          {"reasoning", ToOrderedJson(fields.Find("reasoning"), OrderedJson::object())},
          {"store", fields.Boolean("store").value_or(true)},
          {"temperature", ToOrderedJson(fields.Find("temperature"), 1.0)},
          {"text", ToOrderedJson(text, {{"format", {{"type", "text"}}}})},
          {"tool_choice", ToOrderedJson(fields.Find("tool_choice"), "auto")},
          {"tools", ToOrderedJson(fields.Find("tools"), OrderedJson::array())},
          {"top_p", ToOrderedJson(fields.Find("top_p"), 1.0)},
          {"truncation", "disabled"}};
}

void ReadInput(const RequestFields& fields, std::vector<Message>& messages) {
  const JsonValue& input = fields.Require("input");
  if (input.is_string()) {
    messages.emplace_back().content = input.text;
    return;
  }
  if (!input.is_array()) fields.Fail("input", "has to be a text or a list of items");
  InputReader reader(messages);
  for (size_t i = 0; i < input.items.size(); ++i)
    reader.Read(RequestFields(input.items[i], fmt::format("input[{}]", i)));
}

}  // namespace

ResponsesRequest ParseResponsesRequest(const JsonValue& body, const ServedModel& model,
                                       const FindResponse& find) {
  const RequestFields fields(body);
  CheckModelName(fields, model);
  if (const JsonValue* metadata = fields.Find("metadata")) RequestFields{*metadata, "metadata"};
  fields.Refuse("background", "is not supported; stream the response instead", "false");
  fields.Refuse("conversation", "is not supported; use previous_response_id");
  fields.Refuse("prompt", "stored prompts are not supported; send input and instructions");
  fields.Refuse("truncation", "only disabled is supported: nothing is cut from a conversation",
                "\"disabled\"");

  ResponsesRequest result;
  GenerationRequest& request = result.generation;
  Conversation& conversation = request.conversation.emplace();
  if (const auto previous = fields.String("previous_response_id")) {
    std::optional<std::vector<Message>> earlier = find(*previous);
    if (!earlier) {
      ApiError error(404, "previous_response_id",
                     "previous_response_id: no such response is kept; send the whole input");
      error.code = "previous_response_not_found";
      throw error;
    }
    conversation.messages = std::move(*earlier);
  }
  ReadInput(fields, conversation.messages);
  result.store = fields.Boolean("store").value_or(true);
  if (result.store) result.to_keep = conversation.messages;
  if (const auto instructions = fields.String("instructions");
      instructions && !instructions->empty()) {
    Message system;
    system.role = Role::kSystem;
    system.content = *instructions;
    conversation.messages.insert(conversation.messages.begin(), std::move(system));
  }
  if (std::vector<JsonValue> tools = ReadTools(fields, request); !tools.empty())
    SystemMessage(conversation).tools = std::move(tools);
  ReadToolChoice(fields, request);
  request.parallel_calls = fields.Boolean("parallel_tool_calls").value_or(true);
  ReadTextFormat(fields, conversation);

  conversation.thinking = true;
  bool thinking_asked = false;
  if (const JsonValue* value = fields.Find("reasoning")) {
    const RequestFields reasoning(*value, "reasoning");
    if (const auto effort = reasoning.String("effort")) {
      conversation.thinking = *effort != "none";
      if (conversation.thinking)
        conversation.effort = ResolveEffort(*effort, model, "reasoning.effort");
      thinking_asked = conversation.thinking && request.tool_choice == ToolChoice::kAuto;
    }
  }
  FinishConversation(request, thinking_asked);

  ReadSampling(fields, request);
  request.max_tokens = fields.Integer("max_output_tokens", 1, INT32_MAX);
  if (const auto alternatives = fields.Integer("top_logprobs", 0, kMostAlternatives))
    if (*alternatives > 0)
      fields.Fail("top_logprobs", "log probabilities are told by /v1/chat/completions only");
  request.stream = fields.Boolean("stream").value_or(false);
  request.user_id = ReadUserId(fields, "user_id");
  result.echo = EchoedSettings(fields);
  return result;
}

Message ReplyMessage(const Reply& reply) {
  Message message;
  message.role = Role::kAssistant;
  message.reasoning = reply.reasoning;
  message.content = reply.content;
  for (size_t i = 0; i < reply.calls.size(); ++i) {
    const ParsedCall& call = reply.calls[i];
    if (call.complete)
      message.tool_calls.push_back({reply.call_ids[i], call.name, call.arguments, call.sampled});
  }
  return message;
}

}  // namespace toaster
