#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer_file.h"

namespace toaster {

/// Finds added tokens in text: the leftmost, and of those that begin at the same place the longest.
/// Immutable after construction.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = 0;
  };

  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);

  /// The first token in `text` at or after `from`.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  struct Node {
    int32_t id = -1;  ///< of the token that ends here
    std::vector<std::pair<uint8_t, uint32_t>> children;
  };
  const Node* Child(const Node& node, char c) const;
  std::vector<Node> nodes_;  ///< a trie over bytes; the root first
  bool begins_[256] = {};    ///< bytes that some token begins with
};

}  // namespace toaster
