#include "apps/chat_session.h"

#include <fmt/format.h>

#include "chat/render_prompt.h"
#include "engine/stop_strings.h"
#include "tokenizer/special_tokens.h"

namespace toaster {

ChatSession::ChatSession(RunningModel& running, Tokenizer tokenizer, PromptTexts texts,
                         int64_t chunk, GenerateOptions options, std::vector<std::string> stop,
                         PrefixStore* store)
    : running_(running),
      tokenizer_(std::move(tokenizer)),
      texts_(std::move(texts)),
      options_(std::move(options)),
      stop_(std::move(stop)),
      session_(running.model(), chunk, store) {}

void ChatSession::Clear() {
  std::vector<Message>& messages = conversation_.messages;
  const bool system = !messages.empty() && messages[0].role == Role::kSystem;
  messages.resize(system ? 1 : 0);
}

void ChatSession::SetSystem(std::string text) {
  std::vector<Message>& messages = conversation_.messages;
  if (messages.empty() || messages[0].role != Role::kSystem) {
    if (text.empty()) return;
    messages.insert(messages.begin(), Message());
    messages[0].role = Role::kSystem;
  }
  messages[0].content = std::move(text);
  const bool useless =
      messages[0].content.empty() && messages[0].tools.empty() && !messages[0].response_format;
  if (useless) messages.erase(messages.begin());
}

void ChatSession::SetThinking(bool thinking, Effort effort) {
  texts_.EffortText(effort);
  conversation_.thinking = thinking;
  conversation_.effort = effort;
}

void ChatSession::AddUserMessage(std::string text) {
  Message message;
  message.role = Role::kUser;
  message.content = std::move(text);
  conversation_.messages.push_back(std::move(message));
}

bool ChatSession::Undo() {
  std::vector<Message>& messages = conversation_.messages;
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role != Role::kUser) continue;
    messages.resize(i);
    return true;
  }
  return false;
}

void ChatSession::AddReply(std::string reasoning, std::string content,
                           const std::vector<ParsedCall>& calls) {
  Message message;
  message.role = Role::kAssistant;
  message.reasoning = std::move(reasoning);
  message.content = std::move(content);
  for (const ParsedCall& call : calls) {
    if (!call.complete) continue;
    message.tool_calls.push_back(
        {fmt::format("call_{}", ++call_count_), call.name, call.arguments, call.sampled});
  }
  conversation_.messages.push_back(std::move(message));
}

const Generated& ChatSession::Reply(GenerateHooks hooks, const ShowEvent& show) {
  last_ = {};
  reasoning_tokens_ = 0;
  const Prompt prompt = RenderPrompt(conversation_, texts_);
  const PromptTokens tokens = sampled_.Extend(prompt, tokenizer_);
  ReplyParser parser(conversation_.thinking);
  StopStrings stops(stop_);
  std::string reasoning, content;
  bool thinking = conversation_.thinking;
  const auto show_content = [&](std::string text) {
    content += text;
    if (!text.empty()) show({ReplyEvent::Kind::kContent, std::move(text)});
  };
  std::vector<ReplyEvent> events;
  const auto handle_events = [&] {
    for (const ReplyEvent& event : events) {
      if (event.kind == ReplyEvent::Kind::kContent) {
        show_content(stops.Push(event.text));
        if (stops.found()) break;
        continue;
      }
      if (event.kind == ReplyEvent::Kind::kReasoning) reasoning += event.text;
      show(event);
    }
    events.clear();
  };
  hooks.token = [&](int32_t token) {
    const std::string_view bytes = tokenizer_.TokenBytes(token);
    if (tokenizer_.IsControlToken(token) && bytes == kEndThinkToken) thinking = false;
    if (thinking) ++reasoning_tokens_;
    parser.Push(bytes, events);
    handle_events();
    return !stops.found();
  };
  last_ = Generate(session_, running_.config(), tokens.tokens, options_, hooks,
                   static_cast<int64_t>(tokens.stable));
  if (!stops.found()) {
    const bool ended = last_.end == GenerateEnd::kEndOfText;
    parser.Finish(ended ? ReplyEnd::kStop : ReplyEnd::kLength, events);
    handle_events();
    show_content(stops.Finish());
  }
  const bool nothing = last_.reply.empty() && (last_.end == GenerateEnd::kInterrupted ||
                                               last_.end == GenerateEnd::kInterruptedPrompt);
  if (!nothing) {
    AddReply(std::move(reasoning), std::move(content), parser.calls());
    sampled_ = SampledPrompt(prompt, tokens.tokens, last_.reply, tokenizer_);
  }
  return last_;
}

}  // namespace toaster
