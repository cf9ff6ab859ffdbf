#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace toaster {

/// Token ids and numbers of merges stay below this, so that a merge fits into 64 bits.
constexpr int32_t kMaxTokenIds = 1 << 21;

/// One merge rule: `left` followed by `right` becomes `result`.
struct Merge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

/// Byte-pair encoding of single words: begins with one token per byte and applies, again and again,
/// the earliest rule of the list that fits anywhere, leftmost place first.
///
/// Words of a few dozen bytes are searched directly; longer ones go through a heap, so the time is
/// O(n log n) in the length of the word. Immutable after construction: safe to use from any thread.
class BytePairs {
 public:
  /// `byte_tokens`: the token of every byte. `merges`: the rules, the most urgent first; ids must
  /// be in [0, kMaxTokenIds), there are at most kMaxTokenIds rules and no pair has two (CHECKed:
  /// the reader of the file refuses what breaks this).
  BytePairs(const std::array<int32_t, 256>& byte_tokens, std::span<const Merge> merges);

  /// Appends the tokens of `word` to `tokens`.
  void Encode(std::string_view word, std::vector<int32_t>& tokens) const;

 private:
  static constexpr uint32_t kNoRank = ~0u;
  uint32_t Rank(int32_t left, int32_t right) const;
  void EncodeShort(std::string_view word, std::vector<int32_t>& tokens) const;
  void EncodeLong(std::string_view word, std::vector<int32_t>& tokens) const;

  std::array<int32_t, 256> byte_tokens_;
  std::vector<uint64_t> slots_;   ///< left, right, rank: 21 bits each; linear probing
  std::vector<int32_t> results_;  ///< [rank]
  int shift_ = 0;                 ///< from a hash to a slot
};

}  // namespace toaster
