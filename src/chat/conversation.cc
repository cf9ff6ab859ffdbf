#include "chat/conversation.h"

#include <fmt/format.h>

#include <array>

#include "base/error.h"

namespace toaster {
namespace {

[[noreturn]] void Refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what);
}

template <typename T>
struct Name {
  std::string_view name;
  T value;
};

constexpr std::array kRoles = {
    Name<Role>{"system", Role::kSystem},       Name<Role>{"user", Role::kUser},
    Name<Role>{"developer", Role::kDeveloper}, Name<Role>{"latest_reminder", Role::kLatestReminder},
    Name<Role>{"assistant", Role::kAssistant}, Name<Role>{"tool", Role::kTool}};
constexpr std::array kTasks = {
    Name<Task>{"action", Task::kAction},       Name<Task>{"query", Task::kQuery},
    Name<Task>{"authority", Task::kAuthority}, Name<Task>{"domain", Task::kDomain},
    Name<Task>{"read_url", Task::kReadUrl},    Name<Task>{"title", Task::kTitle}};
constexpr std::array kEfforts = {
    Name<Effort>{"none", Effort::kNone}, Name<Effort>{"low", Effort::kLow},
    Name<Effort>{"high", Effort::kHigh}, Name<Effort>{"max", Effort::kMax}};
constexpr std::array kThinkingTypes = {Name<bool>{"enabled", true}, Name<bool>{"disabled", false}};

template <typename T, size_t N>
T ByName(const std::array<Name<T>, N>& names, std::string_view name, const std::string& where) {
  std::string possible;
  for (const Name<T>& known : names) {
    if (known.name == name) return known.value;
    possible += fmt::format("{}{}", possible.empty() ? "" : ", ", known.name);
  }
  Refuse(
      fmt::format("{}: {} is none of {}", where, DumpPythonString(name.substr(0, 60)), possible));
}

template <typename T, size_t N>
std::string_view NameOf(const std::array<Name<T>, N>& names, T value) {
  for (const Name<T>& known : names) {
    if (known.value == value) return known.name;
  }
  return "";
}

/// A member that may be missing or null: nullptr for both.
const JsonValue* Given(const JsonValue& object, std::string_view key) {
  const JsonValue* value = object.Find(key);
  return value && !value->is_null() ? value : nullptr;
}

const JsonValue& RequireObject(const JsonValue& value, const std::string& where) {
  if (!value.is_object()) Refuse(where + ": has to be an object");
  return value;
}
const std::vector<JsonValue>& RequireArray(const JsonValue& value, const std::string& where) {
  if (!value.is_array()) Refuse(where + ": has to be a list");
  return value.items;
}
const std::string& RequireString(const JsonValue& value, const std::string& where) {
  if (!value.is_string()) Refuse(where + ": has to be a string");
  return value.text;
}
bool RequireBoolean(const JsonValue& value, const std::string& where) {
  if (!value.is_boolean()) Refuse(where + ": has to be true or false");
  return value.kind == JsonValue::Kind::kTrue;
}
std::string OptionalString(const JsonValue& object, std::string_view key,
                           const std::string& where) {
  const JsonValue* value = Given(object, key);
  return value ? RequireString(*value, fmt::format("{}.{}", where, key)) : "";
}
bool OptionalBoolean(const JsonValue& object, std::string_view key, const std::string& where) {
  const JsonValue* value = Given(object, key);
  return value && RequireBoolean(*value, fmt::format("{}.{}", where, key));
}

/// A string, or a list of parts: texts joined by an empty line. Other parts are written as
/// [Unsupported TYPE] in a tool's result, as the released encoder does, and refused elsewhere.
std::string ParseContent(const JsonValue& message, bool tool_result, const std::string& where) {
  const JsonValue* content = Given(message, "content");
  if (!content) return "";
  if (content->is_string()) return content->text;
  if (!content->is_array()) Refuse(where + ".content: has to be a string or a list of parts");
  std::string text;
  for (size_t i = 0; i < content->items.size(); ++i) {
    const std::string place = fmt::format("{}.content[{}]", where, i);
    const JsonValue& part = RequireObject(content->items[i], place);
    const std::string type = OptionalString(part, "type", place);
    if (i > 0) text += "\n\n";
    if (type == "text") {
      text += OptionalString(part, "text", place);
    } else if (tool_result) {
      text += fmt::format("[Unsupported {}]", type);
    } else {
      Refuse(fmt::format("{}.type: parts of type {} are not supported; send text", place,
                         DumpPythonString(type.substr(0, 60))));
    }
  }
  return text;
}

std::vector<JsonValue> ParseTools(const JsonValue& tools, const std::string& where) {
  std::vector<JsonValue> functions;
  for (const JsonValue& tool : RequireArray(tools, where)) {
    const std::string place = fmt::format("{}[{}]", where, functions.size());
    const JsonValue* type = Given(RequireObject(tool, place), "type");
    if (type && RequireString(*type, place + ".type") != "function")
      Refuse(place + ".type: only tools of type function are known");
    const JsonValue* function = Given(tool, "function");
    if (!function) Refuse(place + ".function: is missing");
    functions.push_back(RequireObject(*function, place + ".function"));
  }
  return functions;
}

std::vector<ToolCall> ParseToolCalls(const JsonValue& calls, const std::string& where) {
  std::vector<ToolCall> parsed;
  for (const JsonValue& call : RequireArray(calls, where)) {
    const std::string place = fmt::format("{}[{}]", where, parsed.size());
    const JsonValue* function = Given(RequireObject(call, place), "function");
    if (!function) Refuse(place + ".function: is missing");
    RequireObject(*function, place + ".function");
    const JsonValue* name = Given(*function, "name");
    const JsonValue* arguments = Given(*function, "arguments");
    if (!name) Refuse(place + ".function.name: is missing");
    ToolCall& added = parsed.emplace_back();
    added.id = OptionalString(call, "id", place);
    OptionalString(call, "type", place);
    added.name = RequireString(*name, place + ".function.name");
    // Some clients send the arguments as the object itself.
    if (arguments && !arguments->is_string() && !arguments->is_object())
      Refuse(place + ".function.arguments: has to be a string of JSON, or an object");
    if (arguments)
      added.arguments = arguments->is_string() ? arguments->text : DumpPythonJson(*arguments);
  }
  return parsed;
}

/// The schema of a request's response_format, or nothing where there is none to write.
std::optional<JsonValue> ParseRequestFormat(const JsonValue& format) {
  const std::string where = "response_format";
  const std::string type = OptionalString(RequireObject(format, where), "type", where);
  if (type == "text" || type == "json_object") return std::nullopt;
  if (type != "json_schema") {
    Refuse(fmt::format("{}.type: {} is none of text, json_object, json_schema", where,
                       DumpPythonString(type.substr(0, 60))));
  }
  const JsonValue* wrapper = Given(format, "json_schema");
  if (!wrapper) Refuse(where + ".json_schema: is missing");
  const JsonValue* schema = Given(RequireObject(*wrapper, where + ".json_schema"), "schema");
  if (!schema) Refuse(where + ".json_schema.schema: is missing");
  return RequireObject(*schema, where + ".json_schema.schema");
}

Message ParseMessage(const JsonValue& json, const std::string& where) {
  RequireObject(json, where);
  const JsonValue* role = Given(json, "role");
  if (!role) Refuse(where + ".role: is missing");
  Message message;
  message.role = ByName(kRoles, RequireString(*role, where + ".role"), where + ".role");
  message.content = ParseContent(json, message.role == Role::kTool, where);
  if (const JsonValue* tools = Given(json, "tools"))
    message.tools = ParseTools(*tools, where + ".tools");
  // Whatever value a message carries is written, if Python finds it true.
  if (const JsonValue* format = Given(json, "response_format"); format && format->Truthy())
    message.response_format = *format;
  const bool carries = !message.tools.empty() || message.response_format;
  if (carries && message.role != Role::kSystem && message.role != Role::kDeveloper)
    Refuse(where + ": only system and developer messages carry tools or a response_format");
  if (const JsonValue* task = Given(json, "task"))
    message.task = ByName(kTasks, RequireString(*task, where + ".task"), where + ".task");
  if (message.role == Role::kTool)
    message.tool_call_id = OptionalString(json, "tool_call_id", where);
  if (message.role == Role::kAssistant) {
    message.reasoning = OptionalString(
        json, Given(json, "reasoning_content") ? "reasoning_content" : "reasoning", where);
    message.without_eos =
        OptionalBoolean(json, "wo_eos", where) || OptionalBoolean(json, "prefix", where);
    if (const JsonValue* calls = Given(json, "tool_calls"))
      message.tool_calls = ParseToolCalls(*calls, where + ".tool_calls");
  }
  return message;
}

bool ParseThinking(const JsonValue& thinking) {
  if (!thinking.is_object()) return RequireBoolean(thinking, "thinking");
  const std::string type = OptionalString(thinking, "type", "thinking");
  return ByName(kThinkingTypes, type, "thinking.type");
}

}  // namespace

Effort ParseEffort(std::string_view name) { return ByName(kEfforts, name, "reasoning_effort"); }

std::string_view EffortName(Effort effort) { return NameOf(kEfforts, effort); }
std::string_view RoleName(Role role) { return NameOf(kRoles, role); }
std::string_view TaskName(Task task) { return NameOf(kTasks, task); }

Conversation ParseConversation(const JsonValue& json) {
  Conversation conversation;
  const JsonValue* messages = json.is_array() ? &json : nullptr;
  if (!messages) {
    messages = Given(RequireObject(json, "the conversation"), "messages");
    if (!messages) Refuse("messages: is missing");
  }
  for (const JsonValue& message : RequireArray(*messages, "messages")) {
    const std::string where = fmt::format("messages[{}]", conversation.messages.size());
    conversation.messages.push_back(ParseMessage(message, where));
  }
  if (json.is_array()) return conversation;

  if (const JsonValue* thinking = Given(json, "thinking"))
    conversation.thinking = ParseThinking(*thinking);
  conversation.effort = Effort::kNone;
  if (const JsonValue* effort = Given(json, "reasoning_effort"))
    conversation.effort = ParseEffort(RequireString(*effort, "reasoning_effort"));
  conversation.keep_reasoning = OptionalBoolean(json, "keep_reasoning", "the conversation");

  std::vector<JsonValue> tools;
  if (const JsonValue* given = Given(json, "tools")) tools = ParseTools(*given, "tools");
  std::optional<JsonValue> format;
  if (const JsonValue* given = Given(json, "response_format")) format = ParseRequestFormat(*given);
  if (tools.empty() && !format) return conversation;
  std::vector<Message>& all = conversation.messages;
  if (all.empty() || all[0].role != Role::kSystem) {
    all.insert(all.begin(), Message());
    all[0].role = Role::kSystem;
  }
  if (!tools.empty() && !all[0].tools.empty())
    Refuse("tools: given both beside the messages and in messages[0]");
  if (format && all[0].response_format)
    Refuse("response_format: given both beside the messages and in messages[0]");
  if (!tools.empty()) all[0].tools = std::move(tools);
  if (format) all[0].response_format = std::move(format);
  return conversation;
}

}  // namespace toaster
