#include "chat/merge_messages.h"

#include <algorithm>
#include <map>

namespace toaster {
namespace {

/// A piece of a user message.
struct Block {
  bool result = false;  ///< a tool's; otherwise the user's text
  std::string call_id;
  std::string text;
};

using CallOrder = std::map<std::string, size_t>;

CallOrder OrderOf(const Message& assistant) {
  CallOrder order;
  for (size_t i = 0; i < assistant.tool_calls.size(); ++i) {
    const std::string& id = assistant.tool_calls[i].id;
    if (!id.empty()) order[id] = i;
  }
  return order;
}

/// Puts the results, which keep the places they have together, into the order of the calls.
void SortResults(const CallOrder& order, std::vector<Block>& blocks) {
  const auto position = [&](const Block& block) {
    const auto found = order.find(block.call_id);
    return found == order.end() ? 0 : found->second;
  };
  std::vector<Block> results;
  for (const Block& block : blocks) {
    if (block.result) results.push_back(block);
  }
  std::stable_sort(results.begin(), results.end(),
                   [&](const Block& a, const Block& b) { return position(a) < position(b); });
  size_t next = 0;
  for (Block& block : blocks) {
    if (block.result) block = results[next++];
  }
}

std::string Join(const std::vector<Block>& blocks) {
  std::string text;
  for (const Block& block : blocks) {
    if (&block != &blocks.front()) text += "\n\n";
    text += block.result ? "<tool_result>" + block.text + "</tool_result>" : block.text;
  }
  return text;
}

}  // namespace

std::vector<Message> MergeToolMessages(const std::vector<Message>& messages) {
  std::vector<Message> merged;
  std::vector<Block> blocks;  // of the last of `merged`, if that is a user message
  CallOrder order;
  const auto finish = [&] {
    if (blocks.empty()) return;
    SortResults(order, blocks);
    merged.back().content = Join(blocks);
    blocks.clear();
  };
  for (const Message& message : messages) {
    if (message.role != Role::kTool && message.role != Role::kUser) {
      finish();
      if (!message.tool_calls.empty()) order = OrderOf(message);
      merged.push_back(message);
      continue;
    }
    const bool result = message.role == Role::kTool;
    const bool joins = !blocks.empty() && (result || !merged.back().task);
    if (!joins) {
      finish();
      merged.emplace_back();
      merged.back().role = Role::kUser;
    }
    if (message.task) merged.back().task = message.task;
    blocks.push_back({result, message.tool_call_id, message.content});
  }
  finish();
  return merged;
}

}  // namespace toaster
