#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/prompt.h"
#include "chat/python_json.h"

namespace toaster {

enum class Role { kSystem, kUser, kDeveloper, kLatestReminder, kAssistant, kTool };

/// The quick instructions (chat-format.md 7).
enum class Task { kAction, kQuery, kAuthority, kDomain, kReadUrl, kTitle };

/// How hard to think, as the caller asks; which text that means depends on the checkpoint.
enum class Effort { kNone, kLow, kHigh, kMax };

/// A call of a tool by the assistant.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  ///< JSON text, as the model or the client gave it
  /// What the model wrote, where that is known (see SampledCalls): this call's share of the whole
  /// block. Used instead of `arguments` if every call of the message has it.
  std::vector<PromptSegment> sampled;
};

/// One message, in the roles and with the fields the prompt format knows.
struct Message {
  Role role = Role::kUser;
  std::string content;
  std::string reasoning;             ///< of an assistant message
  std::vector<ToolCall> tool_calls;  ///< of an assistant message
  std::string tool_call_id;          ///< of a tool message: the call it answers
  std::vector<JsonValue> tools;      ///< the `function` objects; written by system and developer
  std::optional<JsonValue> response_format;  ///< the schema; written by system and developer
  std::optional<Task> task;
  bool without_eos = false;  ///< of an assistant message: the model is to continue it
};

/// Everything a prompt is made from.
struct Conversation {
  std::vector<Message> messages;
  bool thinking = false;
  Effort effort = Effort::kNone;  ///< used in thinking mode only
  /// Render the reasoning of all turns; happens by itself when some message carries tools.
  bool keep_reasoning = false;
};

/// Reads a conversation in the form of an OpenAI chat request: {"messages": [...], "tools": [...],
/// "response_format": {...}, "thinking": true | {"type": "enabled"}, "reasoning_effort": "none" |
/// "low" | "high" | "max", "keep_reasoning": false}, or just the array of messages. Tools and
/// response format beside the messages go to the first message if that is a system message,
/// otherwise to an empty one put in front. Fields it does not know are left alone.
///
/// Throws Error(kInvalidArgument) naming the field, for example messages[3].content.
Conversation ParseConversation(const JsonValue& json);

/// The spellings used in JSON. ParseEffort() throws Error(kInvalidArgument) naming the possible
/// ones.
Effort ParseEffort(std::string_view name);
std::string_view EffortName(Effort effort);
std::string_view RoleName(Role role);
std::string_view TaskName(Task task);

}  // namespace toaster
