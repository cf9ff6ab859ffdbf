#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "chat/conversation.h"
#include "chat/parse_reply.h"

namespace toaster {

/// What the model wrote for its tool calls, by the ids the calls were given, so that the next
/// turn's prompt repeats the sampled bytes and the prefix cache holds. A client sends back name and
/// arguments only, and these can be written in many ways.
///
/// Keeps the latest blocks of calls, up to a number of bytes. Not safe to use from several threads.
class SampledCalls {
 public:
  explicit SampledCalls(size_t max_bytes = size_t{16} << 20) : max_bytes_(max_bytes) {}

  /// Keeps the calls of one reply; `ids` in the same order. Does nothing if one of them is
  /// incomplete, has an empty id or has an id twice.
  void Keep(const std::vector<std::string>& ids, const std::vector<ParsedCall>& calls);

  /// Fills in ToolCall::sampled of every assistant message whose calls are, all of them and in the
  /// same order, the kept calls of one reply with unchanged names and (as JSON) arguments.
  void Restore(std::vector<Message>& messages) const;

  size_t bytes() const { return bytes_; }

 private:
  struct Block {
    std::vector<std::string> ids;
    std::vector<ParsedCall> calls;
    size_t bytes = 0;
  };
  void RemoveOldest();
  const Block* Find(const Message& message) const;

  size_t max_bytes_;
  size_t bytes_ = 0;
  std::list<Block> blocks_;  ///< the oldest first
  std::unordered_map<std::string, std::list<Block>::iterator> by_first_id_;
};

}  // namespace toaster
