#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/byte_pairs.h"

namespace toaster {

/// The words that byte-pair encoding turns into one token, found by one look-up: most words of most
/// texts. Whether the merges really arrive at a token is tried when the token is first met.
///
/// Safe to use from any thread: two threads that try the same token store the same answer.
class WholeWords {
 public:
  /// `tokens`: the bytes of every id; they and `byte_pairs` have to outlive this.
  WholeWords(const std::vector<std::string>& tokens, const std::vector<Merge>& merges,
             const BytePairs& byte_pairs);

  /// The token that is the whole encoding of `word`, if there is one.
  std::optional<int32_t> Find(std::string_view word) const;

 private:
  enum State : uint8_t { kUntried, kWhole, kSplit };
  bool MergesInto(std::string_view word, int32_t id) const;

  const std::vector<std::string>& tokens_;
  const BytePairs& byte_pairs_;
  std::vector<int32_t> slots_;  ///< ids by the hash of their bytes, linear probing; -1: empty
  std::unique_ptr<std::atomic<uint8_t>[]> states_;
  size_t longest_ = 0;  ///< bytes
};

}  // namespace toaster
