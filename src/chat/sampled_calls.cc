#include "chat/sampled_calls.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "chat/python_json.h"

namespace toaster {

namespace {

/// Equal as they are, or as JSON: some clients send the arguments as an object, which is written
/// anew.
bool SameArguments(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const std::optional<JsonValue> x = TryParsePythonJson(a), y = TryParsePythonJson(b);
  return x && y && DumpPythonJson(*x) == DumpPythonJson(*y);
}

}  // namespace

void SampledCalls::Keep(const std::vector<std::string>& ids, const std::vector<ParsedCall>& calls) {
  CHECK(ids.size() == calls.size(), "{} ids, {} calls", ids.size(), calls.size());
  const bool complete = std::all_of(calls.begin(), calls.end(),
                                    [](const ParsedCall& call) { return !call.sampled.empty(); });
  const std::set<std::string> different(ids.begin(), ids.end());
  if (calls.empty() || !complete || different.size() < ids.size() || different.contains("")) return;
  Block block = {ids, calls, 0};
  for (size_t i = 0; i < calls.size(); ++i) {
    block.bytes += ids[i].size() + calls[i].name.size() + calls[i].arguments.size();
    for (const PromptSegment& segment : calls[i].sampled)
      block.bytes += sizeof segment + segment.text.size();
  }
  if (block.bytes > max_bytes_) return;
  if (const auto same = by_first_id_.find(ids[0]); same != by_first_id_.end()) {
    bytes_ -= same->second->bytes;
    blocks_.erase(same->second);
    by_first_id_.erase(same);
  }
  bytes_ += block.bytes;
  blocks_.push_back(std::move(block));
  by_first_id_[ids[0]] = std::prev(blocks_.end());
  while (bytes_ > max_bytes_) RemoveOldest();
}

void SampledCalls::RemoveOldest() {
  bytes_ -= blocks_.front().bytes;
  by_first_id_.erase(blocks_.front().ids[0]);
  blocks_.pop_front();
}

const SampledCalls::Block* SampledCalls::Find(const Message& message) const {
  if (message.tool_calls.empty()) return nullptr;
  const auto found = by_first_id_.find(message.tool_calls[0].id);
  if (found == by_first_id_.end()) return nullptr;
  const Block& block = *found->second;
  if (block.calls.size() != message.tool_calls.size()) return nullptr;
  for (size_t i = 0; i < block.calls.size(); ++i) {
    const ToolCall& call = message.tool_calls[i];
    if (call.id != block.ids[i] || call.name != block.calls[i].name ||
        !SameArguments(call.arguments, block.calls[i].arguments)) {
      return nullptr;
    }
  }
  return &block;
}

void SampledCalls::Restore(std::vector<Message>& messages) const {
  for (Message& message : messages) {
    const Block* block = Find(message);
    if (!block) continue;
    for (size_t i = 0; i < block->calls.size(); ++i)
      message.tool_calls[i].sampled = block->calls[i].sampled;
  }
}

}  // namespace toaster
