#include "tokenizer/train_byte_pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <span>

#include "base/error.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/split_words.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

/// Longer words are counted in pieces: no token grows across so many bytes, and one endless word
/// would be gone through for every merge.
constexpr size_t kLongestWord = 1024;

constexpr int32_t kFirstByte = 3;
constexpr int32_t kFirstMerged = kFirstByte + 256;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

/// The words as sequences of tokens, the pairs in them, and the merges so far.
class Trainer {
 public:
  Trainer(const WordCounts& words, const BytePairTraining& settings) : settings_(settings) {
    for (int32_t byte = 0; byte < 256; ++byte)
      Name(kFirstByte + byte, std::string(1, static_cast<char>(byte)));
    // In the order of their bytes: the table's order is nobody's business.
    std::vector<const WordCounts::Table::value_type*> sorted;
    for (const auto& entry : words.counts()) sorted.push_back(&entry);
    std::sort(sorted.begin(), sorted.end(),
              [](const auto* a, const auto* b) { return a->first < b->first; });
    for (const auto* entry : sorted) AddWord(entry->first, entry->second);
    for (const auto& [key, pair] : pairs_) queue_.push({pair.count, key});
  }

  /// Makes the next merge; false if no pair is left.
  bool Step() {
    while (!queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(best.key);
      if (found == pairs_.end()) continue;
      if (found->second.count != best.count) {  // it has become rarer since
        if (found->second.count > 0) queue_.push({found->second.count, best.key});
        continue;
      }
      if (best.count < settings_.min_count) return false;
      const std::vector<uint32_t> places = std::move(found->second.words);
      pairs_.erase(found);
      const auto left = static_cast<int32_t>(best.key >> 32);
      const auto right = static_cast<int32_t>(best.key & 0xFFFFFFFF);
      std::string bytes = tokens_[static_cast<size_t>(left)] + tokens_[static_cast<size_t>(right)];
      if (ids_.contains(bytes)) continue;
      MergePair({left, right, static_cast<int32_t>(tokens_.size())}, std::move(bytes), places);
      return true;
    }
    return false;
  }

  const std::vector<std::string>& tokens() const { return tokens_; }
  const std::vector<Merge>& merges() const { return merges_; }

  int64_t TokenCount() const {
    int64_t count = 0;
    for (const Word& word : words_) count += word.count * word.length;
    return count;
  }

 private:
  struct Word {
    size_t begin = 0;  ///< of its tokens in symbols_
    uint32_t length = 0;
    int64_t count = 0;
  };
  struct Pair {
    int64_t count = 0;
    std::vector<uint32_t> words;  ///< that have or had it; some may be listed twice
  };
  struct Candidate {
    int64_t count;
    uint64_t key;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  void Name(int32_t id, std::string bytes) {
    tokens_.resize(std::max(tokens_.size(), static_cast<size_t>(id) + 1));
    ids_.emplace(bytes, id);
    tokens_[static_cast<size_t>(id)] = std::move(bytes);
  }

  bool Mergeable(int32_t left, int32_t right) const {
    const std::string& a = tokens_[static_cast<size_t>(left)];
    const std::string& b = tokens_[static_cast<size_t>(right)];
    if (a.size() + b.size() > kLongestTrainedToken) return false;
    const auto is_digit = [](const std::string& token) {
      return token.size() == 1 && token[0] >= '0' && token[0] <= '9';
    };
    return !settings_.single_digits || (!is_digit(a) && !is_digit(b));
  }

  void AddWord(const std::string& bytes, int64_t count) {
    const auto number = static_cast<uint32_t>(words_.size());
    words_.push_back({symbols_.size(), static_cast<uint32_t>(bytes.size()), count});
    for (const char byte : bytes) symbols_.push_back(kFirstByte + static_cast<uint8_t>(byte));
    const std::span<const int32_t> symbols = Symbols(words_.back());
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      Count(symbols[i], symbols[i + 1], count, number);
  }

  std::span<int32_t> Symbols(const Word& word) {
    return std::span(symbols_).subspan(word.begin, word.length);
  }

  /// `count` more occurrences of a pair in a word.
  void Count(int32_t left, int32_t right, int64_t count, uint32_t word) {
    if (!Mergeable(left, right)) return;
    Pair& pair = pairs_[PairKey(left, right)];
    pair.count += count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  }
  void Uncount(int32_t left, int32_t right, int64_t count) {
    // Pairs that were merged, passed over or never mergeable are not counted.
    if (const auto found = pairs_.find(PairKey(left, right)); found != pairs_.end())
      found->second.count -= count;
  }

  void MergePair(const Merge& merge, std::string bytes, const std::vector<uint32_t>& places) {
    Name(merge.result, std::move(bytes));
    merges_.push_back(merge);
    grown_.clear();
    for (const uint32_t number : places) MergeInWord(merge, number);
    // Only pairs with the new token have become more frequent; the others wait under a count that
    // is too high and are put right when they come up.
    std::sort(grown_.begin(), grown_.end());
    grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
    for (const uint64_t key : grown_) {
      if (const auto found = pairs_.find(key); found != pairs_.end())
        queue_.push({found->second.count, key});
    }
  }

  void MergeInWord(const Merge& merge, uint32_t number) {
    Word& word = words_[number];
    const std::span<int32_t> symbols = Symbols(word);
    size_t kept = 0;
    bool after_new = false;  // symbols[kept - 1] was made by this merge
    for (size_t i = 0; i < symbols.size(); ++kept) {
      const bool fits =
          i + 1 < symbols.size() && symbols[i] == merge.left && symbols[i + 1] == merge.right;
      const int32_t token = fits ? merge.result : symbols[i];
      // The old pair of the places before and at i goes if either is merged; the new one comes.
      if (kept > 0 && (fits || after_new)) {
        Uncount(after_new ? merge.right : symbols[kept - 1], symbols[i], word.count);
        Count(symbols[kept - 1], token, word.count, number);
        grown_.push_back(PairKey(symbols[kept - 1], token));
      }
      symbols[kept] = token;
      after_new = fits;
      i += fits ? 2 : 1;
    }
    word.length = static_cast<uint32_t>(kept);
  }

  const BytePairTraining settings_;
  std::vector<std::string> tokens_;  ///< [id], without control tokens
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<Merge> merges_;
  std::vector<Word> words_;
  std::vector<int32_t> symbols_;
  std::unordered_map<uint64_t, Pair> pairs_;  ///< that may still be merged
  std::priority_queue<Candidate> queue_;
  std::vector<uint64_t> grown_;
};

TokenizerFile MakeFile(const Trainer& trainer) {
  TokenizerFile file;
  file.tokens = trainer.tokens();
  file.merges = trainer.merges();
  file.expressions = DeepSeekExpressions();
  for (int32_t byte = 0; byte < 256; ++byte)
    file.byte_tokens[static_cast<size_t>(byte)] = kFirstByte + byte;
  // The flag as in the released files: other programs leave special tokens out of a reply's text,
  // where they look for the rest.
  for (const std::string_view text : {kBosToken, kEosToken, kPadToken})
    file.added_tokens.push_back(
        {static_cast<int32_t>(file.added_tokens.size()), std::string(text), true});
  for (const std::string_view text : Tokenizer::ByteControlTokens()) {
    file.added_tokens.push_back(
        {static_cast<int32_t>(file.tokens.size()), std::string(text), false});
    file.tokens.emplace_back(text);
  }
  for (const AddedToken& token : file.added_tokens)
    file.tokens[static_cast<size_t>(token.id)] = token.text;
  return file;
}

}  // namespace

void WordCounts::Add(std::string_view text) {
  static const WordSplitter splitter(DeepSeekExpressions(), "the words of the training texts");
  std::vector<uint32_t> ends;
  splitter.Split(text, ends);
  bytes_ += static_cast<int64_t>(text.size());
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    while (begin < end) {
      const std::string_view word = text.substr(begin, std::min<size_t>(end - begin, kLongestWord));
      begin += static_cast<uint32_t>(word.size());
      ++total_;
      if (const auto found = counts_.find(word); found != counts_.end()) {
        ++found->second;
      } else {
        counts_.emplace(word, 1);
      }
    }
  }
}

void WordCounts::Add(const WordCounts& other) {
  for (const auto& [word, count] : other.counts_) counts_[word] += count;
  total_ += other.total_;
  bytes_ += other.bytes_;
}

size_t WordCounts::WholeLines(std::string_view text) {
  // A line feed ends a word, unless more white space follows; bytes below 0x21 and everything
  // outside ASCII count as that here.
  for (size_t place = text.size(); place-- > 1;) {
    const auto next = static_cast<uint8_t>(text[place]);
    if (text[place - 1] == '\n' && next > ' ' && next < 0x7F) return place;
  }
  return 0;
}

int64_t MinTrainedVocabulary() {
  return kFirstMerged + static_cast<int64_t>(Tokenizer::ByteControlTokens().size());
}

TrainedBytePairs TrainBytePairs(const WordCounts& words, const BytePairTraining& settings,
                                const std::function<bool(int64_t, int64_t)>& progress) {
  const int64_t merges = settings.vocab_size - MinTrainedVocabulary();
  if (merges < 0 || settings.vocab_size > kMaxTokenIds) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a vocabulary of {} tokens; from {} (bytes and control tokens) to {} "
                            "are possible",
                            settings.vocab_size, MinTrainedVocabulary(), kMaxTokenIds));
  }
  if (settings.min_count < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a least count of {}; it has to be at least 1", settings.min_count));
  }
  Trainer trainer(words, settings);
  for (int64_t done = 0; done < merges && trainer.Step(); ++done) {
    if (progress && !progress(done, merges))
      throw Error(ErrorCode::kCancelled, "training of the tokenizer was stopped");
  }
  return {MakeFile(trainer), trainer.TokenCount()};
}

}  // namespace toaster
