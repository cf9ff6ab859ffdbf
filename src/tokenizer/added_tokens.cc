#include "tokenizer/added_tokens.h"

#include <algorithm>

namespace toaster {

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens) : nodes_(1) {
  for (const AddedToken& token : tokens) {
    uint32_t place = 0;
    for (const char c : token.text) {
      const auto byte = static_cast<uint8_t>(c);
      const auto& children = nodes_[place].children;
      const auto found = std::find_if(children.begin(), children.end(),
                                      [&](const auto& child) { return child.first == byte; });
      if (found != children.end()) {
        place = found->second;
        continue;
      }
      const auto added = static_cast<uint32_t>(nodes_.size());
      nodes_[place].children.emplace_back(byte, added);
      nodes_.emplace_back();
      place = added;
    }
    nodes_[place].id = token.id;
    begins_[static_cast<uint8_t>(token.text[0])] = true;
  }
}

const AddedTokenMatcher::Node* AddedTokenMatcher::Child(const Node& node, char c) const {
  for (const auto& [byte, place] : node.children) {
    if (byte == static_cast<uint8_t>(c)) return &nodes_[place];
  }
  return nullptr;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::Find(std::string_view text,
                                                                size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    Match match = {begin, begin, -1};
    const Node* node = &nodes_[0];
    for (size_t end = begin; end < text.size();) {
      node = Child(*node, text[end++]);
      if (!node) break;
      if (node->id >= 0) match = {begin, end, node->id};
    }
    if (match.id >= 0) return match;
  }
  return std::nullopt;
}

}  // namespace toaster
