#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "chat/conversation.h"
#include "chat/sampled_calls.h"
#include "chat/sampled_prompt.h"
#include "server/reply.h"

namespace toaster {

/// What the server remembers of its replies, so that the next turn's prompt is the one the model
/// has seen: the tokens as sampled, the bytes of tool calls, the reasoning that came before calls
/// (which clients drop, and without which the model loses its thread), and the conversations of
/// the Responses API. Bounded; the latest is kept. Any thread.
class ConversationMemory {
 public:
  explicit ConversationMemory(size_t max_bytes) : max_bytes_(max_bytes), calls_(max_bytes) {}

  /// Puts sampled bytes and dropped reasoning back into messages that carry calls of this server.
  /// Returns how many messages got their reasoning back.
  int64_t Restore(std::vector<Message>& messages);
  /// The tokens of a prompt: sampled ones where it goes on from a reply of this server.
  PromptTokens Encode(const Prompt& prompt, const Tokenizer& tokenizer);
  /// Remembers a reply: the prompt it came after and its tokens.
  void Keep(Prompt prompt, std::vector<int32_t> prompt_tokens, std::span<const int32_t> tokens,
            const Reply& reply, const Tokenizer& tokenizer);

  /// Conversations by the id of their last response; a user finds only their own.
  void KeepResponse(const std::string& user, const std::string& id, std::vector<Message> messages);
  std::optional<std::vector<Message>> FindResponse(const std::string& user, const std::string& id);

 private:
  struct Entry {
    std::string key;
    std::string reasoning;          ///< of the call with the id `key`
    std::vector<Message> messages;  ///< of the response with this key
    size_t bytes = 0;
  };
  void Add(Entry entry);
  Entry* Find(const std::string& key);

  const size_t max_bytes_;  ///< of each kind
  std::mutex mutex_;
  SampledCalls calls_;
  std::list<SampledPrompt> prompts_;  ///< the oldest first
  size_t prompt_bytes_ = 0;
  std::list<Entry> entries_;  ///< the oldest first
  size_t entry_bytes_ = 0;
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace toaster
