#include "tokenizer/byte_pairs.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>

#include "base/check.h"

namespace toaster {
namespace {

constexpr int kIdBits = 21;
constexpr uint64_t kRankMask = (1ull << kIdBits) - 1;
constexpr uint64_t kEmptySlot = ~0ull;
constexpr size_t kShortWord = 64;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << kIdBits | static_cast<uint64_t>(right);
}

uint64_t HashOf(uint64_t key) { return key * 0x9E3779B97F4A7C15ull; }

}  // namespace

BytePairs::BytePairs(const std::array<int32_t, 256>& byte_tokens, std::span<const Merge> merges)
    : byte_tokens_(byte_tokens) {
  CHECK(merges.size() < static_cast<size_t>(kMaxTokenIds), "{} merges", merges.size());
  const size_t slots = std::bit_ceil(std::max<size_t>(2, 2 * merges.size()));
  shift_ = 64 - std::countr_zero(slots);
  slots_.assign(slots, kEmptySlot);
  results_.reserve(merges.size());
  for (const Merge& merge : merges) {
    CHECK(std::max({merge.left, merge.right, merge.result}) < kMaxTokenIds);
    CHECK(std::min({merge.left, merge.right, merge.result}) >= 0);
    CHECK(Rank(merge.left, merge.right) == kNoRank, "{} {}", merge.left, merge.right);
    const uint64_t key = PairKey(merge.left, merge.right);
    size_t slot = HashOf(key) >> shift_;
    while (slots_[slot] != kEmptySlot) slot = (slot + 1) & (slots - 1);
    slots_[slot] = key << kIdBits | results_.size();
    results_.push_back(merge.result);
  }
}

uint32_t BytePairs::Rank(int32_t left, int32_t right) const {
  const uint64_t key = PairKey(left, right);
  for (size_t slot = HashOf(key) >> shift_;; slot = (slot + 1) & (slots_.size() - 1)) {
    const uint64_t found = slots_[slot];
    if (found >> kIdBits == key) return static_cast<uint32_t>(found & kRankMask);
    if (found == kEmptySlot) return kNoRank;
  }
}

void BytePairs::Encode(std::string_view word, std::vector<int32_t>& tokens) const {
  if (results_.empty() || word.size() < 2) {
    for (const char c : word) tokens.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
  } else if (word.size() <= kShortWord) {
    EncodeShort(word, tokens);
  } else {
    EncodeLong(word, tokens);
  }
}

void BytePairs::EncodeShort(std::string_view word, std::vector<int32_t>& tokens) const {
  std::array<int32_t, kShortWord> ids;
  std::array<uint32_t, kShortWord> ranks;  // of the pair that begins at each place
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) ids[i] = byte_tokens_[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = Rank(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoRank) break;
    ids[best] = results_[ranks[best]];
    --count;
    std::copy(ids.begin() + best + 2, ids.begin() + count + 1, ids.begin() + best + 1);
    if (best + 1 < count) {
      std::copy(ranks.begin() + best + 2, ranks.begin() + count, ranks.begin() + best + 1);
      ranks[best] = Rank(ids[best], ids[best + 1]);
    }
    if (best > 0) ranks[best - 1] = Rank(ids[best - 1], ids[best]);
  }
  tokens.insert(tokens.end(), ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count));
}

void BytePairs::EncodeLong(std::string_view word, std::vector<int32_t>& tokens) const {
  constexpr uint32_t kNone = ~0u;
  struct Symbol {
    int32_t id;
    uint32_t rank;  // of the pair it forms with the next symbol; kNoRank also when merged away
    uint32_t previous, next;
  };
  const auto count = static_cast<uint32_t>(word.size());
  std::vector<Symbol> symbols(count);
  std::vector<uint64_t> candidates;  // rank, place: the smallest is the earliest rule, leftmost
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_tokens_[static_cast<uint8_t>(word[i])], kNoRank, i == 0 ? kNone : i - 1,
                  i + 1 == count ? kNone : i + 1};
  }
  const auto rank_at = [&](uint32_t place) {
    Symbol& symbol = symbols[place];
    symbol.rank = symbol.next == kNone ? kNoRank : Rank(symbol.id, symbols[symbol.next].id);
    return static_cast<uint64_t>(symbol.rank) << 32 | place;
  };
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t candidate = rank_at(i);
    if (symbols[i].rank != kNoRank) candidates.push_back(candidate);
  }
  std::priority_queue queue(std::greater<uint64_t>(), std::move(candidates));
  while (!queue.empty()) {
    const auto place = static_cast<uint32_t>(queue.top());
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    queue.pop();
    Symbol& symbol = symbols[place];
    if (symbol.rank != rank) continue;  // one of the two has since been merged with another
    Symbol& right = symbols[symbol.next];
    symbol.id = results_[rank];
    right.rank = kNoRank;
    symbol.next = right.next;
    if (symbol.next != kNone) symbols[symbol.next].previous = place;
    const uint64_t candidate = rank_at(place);
    if (symbol.rank != kNoRank) queue.push(candidate);
    if (symbol.previous != kNone) {
      const uint64_t before = rank_at(symbol.previous);
      if (symbols[symbol.previous].rank != kNoRank) queue.push(before);
    }
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) tokens.push_back(symbols[i].id);
}

}  // namespace toaster
