#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/generate.h"
#include "chat/conversation.h"
#include "chat/parse_reply.h"
#include "chat/prompt_texts.h"
#include "chat/sampled_prompt.h"
#include "engine/running_model.h"
#include "engine/session.h"
#include "tokenizer/tokenizer.h"

namespace toaster {

/// A conversation with a model: messages go in, replies come out as events. Knows no terminal. The
/// cache and the sampled tokens of earlier turns are reused as far as the prompt format allows.
/// Used by one thread at a time; the model is borrowed.
class ChatSession {
 public:
  /// `stop`: texts that end an answer (not the reasoning), as `options` for every reply. `store`,
  /// borrowed, may be null.
  ChatSession(RunningModel& running, Tokenizer tokenizer, PromptTexts texts, int64_t chunk,
              GenerateOptions options, std::vector<std::string> stop, PrefixStore* store = nullptr);

  const Conversation& conversation() const { return conversation_; }
  /// Goes on with another conversation.
  void SetConversation(Conversation conversation) { conversation_ = std::move(conversation); }
  /// Forgets all messages but the system message at the beginning.
  void Clear();
  /// Replaces the system message at the beginning; an empty text removes it. Tools and a response
  /// format that it carries stay.
  void SetSystem(std::string text);
  /// Throws what PromptTexts::EffortText() throws, and changes nothing then.
  void SetThinking(bool thinking, Effort effort);
  void AddUserMessage(std::string text);
  /// Takes back the last user message and everything after it; false if there is none.
  bool Undo();

  using ShowEvent = std::function<void(const ReplyEvent&)>;
  /// Lets the model answer; the reply becomes the last message, also one that was stopped. Only a
  /// reply that was stopped before its first token leaves the messages as they are. The hooks
  /// `token` is the session's own. Throws what RenderPrompt() and Generate() throw.
  const Generated& Reply(GenerateHooks hooks, const ShowEvent& show);

  /// The last reply; zeros before the first.
  const Generated& last() const { return last_; }
  /// Tokens of reasoning in the last reply, or so far in the one that is on its way.
  int64_t reasoning_tokens() const { return reasoning_tokens_; }
  const Session& session() const { return session_; }

 private:
  void AddReply(std::string reasoning, std::string content, const std::vector<ParsedCall>& calls);

  RunningModel& running_;
  Tokenizer tokenizer_;
  PromptTexts texts_;
  GenerateOptions options_;
  std::vector<std::string> stop_;
  Session session_;
  Conversation conversation_;
  SampledPrompt sampled_;
  Generated last_;
  int64_t reasoning_tokens_ = 0;
  int64_t call_count_ = 0;
};

}  // namespace toaster
