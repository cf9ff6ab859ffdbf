#include "server/generation_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "server/api_error.h"

namespace toaster {
namespace {

constexpr size_t kLongestUserId = 512;

bool Contains(const std::vector<Effort>& efforts, Effort effort) {
  return std::find(efforts.begin(), efforts.end(), effort) != efforts.end();
}

void CheckTool(const JsonValue& tool, const std::string& place) {
  const RequestFields fields(tool, place);
  if (fields.RequireString("name").empty()) fields.Fail("name", "is empty");
  fields.String("description");
  if (const JsonValue* schema = fields.Find("parameters"))
    RequestFields{*schema, fields.Path("parameters")};
  if (fields.Boolean("strict").value_or(false)) {
    fields.Fail("strict",
                "arguments are not held to their schema while sampling; leave strict out and check "
                "them");
  }
}

}  // namespace

void CheckModelName(const RequestFields& fields, const ServedModel& model) {
  const std::optional<std::string> name = fields.String("model");
  if (!name || *name == model.name || name->rfind("deepseek-", 0) == 0) return;
  for (const std::string& alias : model.aliases) {
    if (alias == "*" || alias == *name) return;
  }
  ApiError error(404, "model",
                 fmt::format("model: this server has no model of that name; ask for {}, or start "
                             "the server with --alias",
                             model.name));
  error.code = "model_not_found";
  throw error;
}

void ReadSampling(const RequestFields& fields, GenerationRequest& request) {
  SamplingOptions& sampling = request.sampling;
  const auto number = [&](const char* key, double least, double most, float& value) {
    if (const auto given = fields.Number(key, least, most)) value = static_cast<float>(*given);
  };
  number("temperature", 0, 2, sampling.temperature);
  number("top_p", 0, 1, sampling.top_p);
  number("min_p", 0, 1, sampling.min_p);
  number("presence_penalty", -2, 2, sampling.presence_penalty);
  number("frequency_penalty", -2, 2, sampling.frequency_penalty);
  number("repetition_penalty", 0.01, 100, sampling.repetition_penalty);
  // vLLM writes -1 for all tokens.
  if (const auto top_k = fields.Integer("top_k", -1, INT32_MAX))
    sampling.top_k = std::max<int64_t>(*top_k, 0);
  if (const auto seed = fields.Integer("seed", INT64_MIN, INT64_MAX))
    request.seed = static_cast<uint64_t>(*seed);
}

Effort ResolveEffort(std::string_view name, const ServedModel& model, std::string_view param) {
  struct Meaning {
    std::string_view name;
    Effort preview, later;
  };
  // The later revision knows "low" as a level of its own (chat-format.md 3).
  constexpr std::array kMeanings = {Meaning{"minimal", Effort::kHigh, Effort::kLow},
                                    Meaning{"low", Effort::kHigh, Effort::kLow},
                                    Meaning{"medium", Effort::kHigh, Effort::kHigh},
                                    Meaning{"high", Effort::kHigh, Effort::kHigh},
                                    Meaning{"xhigh", Effort::kMax, Effort::kHigh},
                                    Meaning{"max", Effort::kMax, Effort::kMax},
                                    Meaning{"ultra", Effort::kMax, Effort::kMax}};
  for (const Meaning& meaning : kMeanings) {
    if (meaning.name != name) continue;
    if (!model.efforts.empty())
      return Contains(model.efforts, Effort::kLow) ? meaning.later : meaning.preview;
    if (meaning.preview != Effort::kMax) return Effort::kNone;
    RefuseField(param, "this model has no texts for reasoning efforts; leave the effort out");
  }
  RefuseField(param, "is none of none, minimal, low, medium, high, xhigh, max, ultra");
}

std::optional<bool> ReadThinking(const RequestFields& fields) {
  const JsonValue* thinking = fields.Find("thinking");
  if (!thinking) return std::nullopt;
  if (thinking->is_boolean()) return thinking->kind == JsonValue::Kind::kTrue;
  const RequestFields inner(*thinking, fields.Path("thinking"));
  const std::string type = inner.RequireString("type");
  if (type == "enabled" || type == "adaptive") return true;
  if (type == "disabled") return false;
  inner.Fail("type", "is none of enabled, adaptive, disabled");
}

std::string ReadUserId(const RequestFields& fields, std::string_view key) {
  std::string user = fields.String(key).value_or("");
  const bool good = std::all_of(user.begin(), user.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  if (!good || user.size() > kLongestUserId) {
    fields.Fail(key, fmt::format("has to be at most {} letters, digits, hyphens and underscores",
                                 kLongestUserId));
  }
  return user;
}

void FinishConversation(GenerationRequest& request, bool thinking_asked,
                        std::string_view function_key) {
  Conversation& conversation = *request.conversation;
  if (conversation.messages.empty()) RefuseField("messages", "is empty");
  bool tools = false;
  for (Message& message : conversation.messages) {
    tools = tools || !message.tools.empty();
    for (size_t i = 0; i < message.tools.size(); ++i)
      CheckTool(message.tools[i], fmt::format("tools[{}]{}", i, function_key));
    if (request.tool_choice == ToolChoice::kNone) message.tools.clear();
  }
  if (request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed) {
    if (!tools) RefuseField("tool_choice", "asks for a call, but there are no tools");
    if (conversation.thinking && thinking_asked) {
      RefuseField("tool_choice",
                  "a forced call begins at once and leaves no room for thinking; disable thinking "
                  "or let the model choose");
    }
    conversation.thinking = false;
  }
  // An answer follows a user turn; a request of instructions alone gets an empty one.
  const Message& last = conversation.messages.back();
  if (last.role == Role::kSystem || last.role == Role::kLatestReminder)
    conversation.messages.emplace_back();
  else if (last.role == Role::kAssistant && !last.without_eos && !last.task) {
    RefuseField(fmt::format("messages[{}]", conversation.messages.size() - 1),
                "the conversation ends with an answer; end it with a user message, or set prefix "
                "to true to have the answer continued");
  }
  if (request.ContinuesAnswer() && !conversation.messages.back().tool_calls.empty())
    RefuseField("messages", "an answer with tool calls can't be continued");
}

Message& SystemMessage(Conversation& conversation) {
  std::vector<Message>& messages = conversation.messages;
  if (messages.empty() || messages[0].role != Role::kSystem) {
    messages.insert(messages.begin(), Message());
    messages[0].role = Role::kSystem;
  }
  return messages[0];
}

}  // namespace toaster
