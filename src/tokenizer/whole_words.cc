#include "tokenizer/whole_words.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>

namespace toaster {

WholeWords::WholeWords(const std::vector<std::string>& tokens, const std::vector<Merge>& merges,
                       const BytePairs& byte_pairs)
    : tokens_(tokens),
      byte_pairs_(byte_pairs),
      slots_(std::bit_ceil(2 * merges.size() + 2), -1),
      states_(std::make_unique<std::atomic<uint8_t>[]>(tokens.size())) {
  // Several merges can arrive at one token; it is entered once.
  for (const Merge& merge : merges) {
    const std::string& bytes = tokens[static_cast<size_t>(merge.result)];
    size_t slot = XXH3_64bits(bytes.data(), bytes.size()) & (slots_.size() - 1);
    while (slots_[slot] >= 0 && slots_[slot] != merge.result)
      slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = merge.result;
    longest_ = std::max(longest_, bytes.size());
  }
}

std::optional<int32_t> WholeWords::Find(std::string_view word) const {
  if (word.size() < 2 || word.size() > longest_) return std::nullopt;
  for (size_t slot = XXH3_64bits(word.data(), word.size()) & (slots_.size() - 1);;
       slot = (slot + 1) & (slots_.size() - 1)) {
    const int32_t id = slots_[slot];
    if (id < 0) return std::nullopt;
    if (tokens_[static_cast<size_t>(id)] != word) continue;
    if (MergesInto(word, id)) return id;
    return std::nullopt;
  }
}

bool WholeWords::MergesInto(std::string_view word, int32_t id) const {
  std::atomic<uint8_t>& state = states_[static_cast<size_t>(id)];
  uint8_t known = state.load(std::memory_order_relaxed);
  if (known == kUntried) {
    std::vector<int32_t> parts;
    byte_pairs_.Encode(word, parts);
    known = parts.size() == 1 && parts[0] == id ? kWhole : kSplit;
    state.store(known, std::memory_order_relaxed);
  }
  return known == kWhole;
}

}  // namespace toaster
