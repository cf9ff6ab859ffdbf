#include "server/conversation_memory.h"

#include <fmt/format.h>

namespace toaster {
namespace {

size_t BytesOf(const std::vector<Message>& messages) {
  size_t bytes = 0;
  for (const Message& message : messages) {
    bytes += sizeof message + message.content.size() + message.reasoning.size();
    for (const ToolCall& call : message.tool_calls) {
      bytes += sizeof call + call.name.size() + call.arguments.size();
      for (const PromptSegment& segment : call.sampled)
        bytes += sizeof segment + segment.text.size();
    }
  }
  return bytes;
}

}  // namespace

int64_t ConversationMemory::Restore(std::vector<Message>& messages) {
  const std::lock_guard lock(mutex_);
  calls_.Restore(messages);
  int64_t restored = 0;
  for (Message& message : messages) {
    if (message.tool_calls.empty() || !message.reasoning.empty()) continue;
    const Entry* entry = Find(message.tool_calls[0].id);
    if (!entry || entry->reasoning.empty()) continue;
    message.reasoning = entry->reasoning;
    ++restored;
  }
  return restored;
}

PromptTokens ConversationMemory::Encode(const Prompt& prompt, const Tokenizer& tokenizer) {
  SampledPrompt best;
  {
    const std::lock_guard lock(mutex_);
    for (const SampledPrompt& sampled : prompts_) {
      if (sampled.tokens().size() > best.tokens().size() && sampled.BeginsOf(prompt))
        best = sampled;
    }
  }
  return best.Extend(prompt, tokenizer);
}

void ConversationMemory::Keep(Prompt prompt, std::vector<int32_t> prompt_tokens,
                              std::span<const int32_t> tokens, const Reply& reply,
                              const Tokenizer& tokenizer) {
  SampledPrompt sampled(std::move(prompt), std::move(prompt_tokens), tokens, tokenizer);
  const std::lock_guard lock(mutex_);
  calls_.Keep(reply.call_ids, reply.calls);
  if (!reply.calls.empty() && !reply.reasoning.empty())
    Add({reply.call_ids[0], reply.reasoning, {}, reply.reasoning.size()});
  if (sampled.bytes() > max_bytes_) return;
  prompt_bytes_ += sampled.bytes();
  prompts_.push_back(std::move(sampled));
  while (prompt_bytes_ > max_bytes_) {
    prompt_bytes_ -= prompts_.front().bytes();
    prompts_.pop_front();
  }
}

void ConversationMemory::KeepResponse(const std::string& user, const std::string& id,
                                      std::vector<Message> messages) {
  const std::lock_guard lock(mutex_);
  const size_t bytes = BytesOf(messages);
  Add({fmt::format("{}\n{}", id, user), "", std::move(messages), bytes});
}

std::optional<std::vector<Message>> ConversationMemory::FindResponse(const std::string& user,
                                                                     const std::string& id) {
  const std::lock_guard lock(mutex_);
  const Entry* entry = Find(fmt::format("{}\n{}", id, user));
  if (!entry) return std::nullopt;
  return entry->messages;
}

void ConversationMemory::Add(Entry entry) {
  entry.bytes += sizeof entry + entry.key.size();
  if (entry.bytes > max_bytes_ || by_key_.contains(entry.key)) return;
  entry_bytes_ += entry.bytes;
  entries_.push_back(std::move(entry));
  by_key_[entries_.back().key] = std::prev(entries_.end());
  while (entry_bytes_ > max_bytes_) {
    entry_bytes_ -= entries_.front().bytes;
    by_key_.erase(entries_.front().key);
    entries_.pop_front();
  }
}

ConversationMemory::Entry* ConversationMemory::Find(const std::string& key) {
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : &*found->second;
}

}  // namespace toaster
