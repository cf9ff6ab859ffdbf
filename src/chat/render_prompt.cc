#include "chat/render_prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "chat/merge_messages.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

bool IsUserTurn(const Message& message) {
  return message.role == Role::kUser || message.role == Role::kDeveloper;
}

/// Index of the last user or developer message; -1 if there is none.
ptrdiff_t LastUserTurn(const std::vector<Message>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (IsUserTurn(messages[i])) return static_cast<ptrdiff_t>(i);
  }
  return -1;
}

std::string_view TaskToken(Task task) {
  switch (task) {
    case Task::kAction:
      return kActionToken;
    case Task::kQuery:
      return kQueryToken;
    case Task::kAuthority:
      return kAuthorityToken;
    case Task::kDomain:
      return kDomainToken;
    case Task::kReadUrl:
      return kReadUrlToken;
    case Task::kTitle:
      break;
  }
  return kTitleToken;
}

void AddTag(Prompt& prompt, std::string_view open, std::string_view rest) {
  prompt.AddText(open);
  prompt.AddControl(kDsmlToken);
  prompt.AddText(rest);
}

/// The arguments as parameters; what is no JSON object is one string parameter "arguments".
JsonValue ArgumentsOf(const ToolCall& call) {
  if (std::optional<JsonValue> parsed = TryParsePythonJson(call.arguments);
      parsed && parsed->is_object()) {
    return std::move(*parsed);
  }
  JsonValue arguments = JsonValue::Object();
  arguments.Set("arguments", JsonValue::String(call.arguments));
  return arguments;
}

class Renderer {
 public:
  Renderer(const Conversation& conversation, const PromptTexts& texts)
      : thinking_(conversation.thinking),
        texts_(texts),
        messages_(MergeToolMessages(conversation.messages)) {
    const bool tools = std::any_of(messages_.begin(), messages_.end(),
                                   [](const Message& message) { return !message.tools.empty(); });
    dropping_ = thinking_ && !tools && !conversation.keep_reasoning;
    if (dropping_) DropDeveloperMessages();
    last_user_ = LastUserTurn(messages_);
    effort_text_ = thinking_ ? texts_.EffortText(conversation.effort) : "";
  }

  Prompt Run() {
    prompt_.AddControl(kBosToken);
    if (!messages_.empty()) prompt_.AddText(effort_text_);
    for (size_t i = 0; i < messages_.size(); ++i) {
      RenderMessage(i);
      RenderTransition(i);
    }
    return std::move(prompt_);
  }

 private:
  /// Developer messages before the last user turn are not rendered at all.
  void DropDeveloperMessages() {
    const ptrdiff_t last = LastUserTurn(messages_);
    std::vector<Message> kept;
    for (size_t i = 0; i < messages_.size(); ++i) {
      const bool dropped =
          messages_[i].role == Role::kDeveloper && static_cast<ptrdiff_t>(i) < last;
      if (!dropped) kept.push_back(std::move(messages_[i]));
    }
    messages_ = std::move(kept);
  }

  bool AfterLastUserTurn(size_t index) const { return static_cast<ptrdiff_t>(index) > last_user_; }

  void RenderMessage(size_t index) {
    const Message& message = messages_[index];
    switch (message.role) {
      case Role::kSystem:
        prompt_.AddText(message.content);
        RenderExtras(message);
        return;
      case Role::kDeveloper:
        if (message.content.empty()) {
          throw Error(ErrorCode::kInvalidArgument,
                      "a developer message has no content; give it some or remove it");
        }
        if (dropping_) prompt_.MarkStableEnd();
        prompt_.AddControl(kUserToken);
        prompt_.AddText(message.content);
        RenderExtras(message);
        return;
      case Role::kUser:
        prompt_.AddControl(kUserToken);
        prompt_.AddText(message.content);
        return;
      case Role::kLatestReminder:
        prompt_.AddControl(kLatestReminderToken);
        prompt_.AddText(message.content);
        return;
      case Role::kAssistant:
        RenderAssistant(index);
        return;
      case Role::kTool:  // merged into user messages
        return;
    }
  }

  /// Tools and response format of a system or developer message.
  void RenderExtras(const Message& message) {
    if (!message.tools.empty()) {
      prompt_.AddText("\n\n");
      prompt_.AddTrusted(texts_.ToolsBefore());
      for (size_t i = 0; i < message.tools.size(); ++i) {
        if (i > 0) prompt_.AddText("\n");
        prompt_.AddText(DumpPythonJson(message.tools[i]));
      }
      prompt_.AddTrusted(texts_.ToolsAfter());
    }
    if (message.response_format) {
      prompt_.AddText("\n\n");
      prompt_.AddTrusted(texts_.ResponseFormatBefore());
      prompt_.AddText(DumpPythonJson(*message.response_format));
    }
  }

  void RenderAssistant(size_t index) {
    const Message& message = messages_[index];
    const bool answers_task = index > 0 && messages_[index - 1].task.has_value();
    if (thinking_ && !answers_task && (!dropping_ || AfterLastUserTurn(index))) {
      // Without a user turn there is no transition that a later turn could change instead.
      if (dropping_ && last_user_ < 0) prompt_.MarkStableEnd();
      prompt_.AddText(message.reasoning);
      prompt_.AddControl(kEndThinkToken);
    }
    prompt_.AddText(message.content);
    RenderCalls(message.tool_calls);
    if (!message.without_eos) {
      prompt_.AddControl(kEosToken);
    } else if (index + 1 == messages_.size()) {
      prompt_.MarkStableEnd();
    }
  }

  void RenderCalls(const std::vector<ToolCall>& calls) {
    if (calls.empty()) return;
    const bool sampled = std::all_of(calls.begin(), calls.end(),
                                     [](const ToolCall& call) { return !call.sampled.empty(); });
    if (!sampled) {
      prompt_.Add(RenderToolCalls(calls).segments());
      return;
    }
    for (const ToolCall& call : calls) prompt_.Add(call.sampled);
  }

  /// What a message is followed by when the model speaks next.
  void RenderTransition(size_t index) {
    const Message& message = messages_[index];
    const bool last = index + 1 == messages_.size();
    if (!last && messages_[index + 1].role != Role::kAssistant &&
        messages_[index + 1].role != Role::kLatestReminder) {
      return;
    }
    if (message.task && *message.task != Task::kAction) {
      if (last) prompt_.MarkStableEnd();
      prompt_.AddControl(TaskToken(*message.task));
      return;
    }
    if (!message.task && !IsUserTurn(message)) return;
    prompt_.AddControl(kAssistantToken);
    // An action is asked for in the mode at hand, wherever its message stands.
    const bool from_last_user = static_cast<ptrdiff_t>(index) >= last_user_;
    const bool think = thinking_ && (message.task || !dropping_ || from_last_user);
    if (think && dropping_) prompt_.MarkStableEnd();
    prompt_.AddControl(think ? kThinkToken : kEndThinkToken);
    if (!message.task) return;
    if (last) prompt_.MarkStableEnd();
    prompt_.AddControl(TaskToken(*message.task));
  }

  const bool thinking_;
  const PromptTexts& texts_;
  std::vector<Message> messages_;
  bool dropping_ = false;
  ptrdiff_t last_user_ = -1;
  std::string_view effort_text_;
  Prompt prompt_;
};

}  // namespace

Prompt RenderPrompt(const Conversation& conversation, const PromptTexts& texts) {
  return Renderer(conversation, texts).Run();
}

Prompt RenderFillInTheMiddle(std::string_view prefix, std::string_view suffix) {
  Prompt prompt;
  prompt.AddControl(kBosToken);
  prompt.AddControl(kFimBeginToken);
  prompt.AddText(prefix);
  prompt.AddControl(kFimHoleToken);
  prompt.AddText(suffix);
  prompt.AddControl(kFimEndToken);
  return prompt;
}

Prompt RenderToolCalls(const std::vector<ToolCall>& calls) {
  Prompt prompt;
  AddTag(prompt, "\n\n<", "tool_calls>\n");
  for (const ToolCall& call : calls) {
    AddTag(prompt, "<", fmt::format("invoke name=\"{}\">\n", call.name));
    const JsonValue arguments = ArgumentsOf(call);
    for (size_t i = 0; i < arguments.items.size(); ++i) {
      const JsonValue& value = arguments.items[i];
      if (i > 0) prompt.AddText("\n");
      AddTag(prompt, "<",
             fmt::format("parameter name=\"{}\" string=\"{}\">", arguments.keys[i],
                         value.is_string() ? "true" : "false"));
      prompt.AddText(value.is_string() ? value.text : DumpPythonJson(value));
      AddTag(prompt, "</", "parameter>");
    }
    AddTag(prompt, "\n</", "invoke>\n");
  }
  AddTag(prompt, "</", "tool_calls>");
  return prompt;
}

}  // namespace toaster
