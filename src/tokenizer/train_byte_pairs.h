#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "tokenizer/tokenizer_file.h"

namespace toaster {

/// The words of texts and how often each occurs, cut by DeepSeek's expressions: all that training
/// sees of a text. Sums of counts do not depend on their order, so texts may be counted in any
/// order, in parts, by several counters that are then added up. One thread at a time.
class WordCounts {
 public:
  /// Counts the words of `text` (below 4 GiB), in which nothing is recognised as a control token.
  void Add(std::string_view text);
  void Add(const WordCounts& other);

  /// The end of the longest part of `text` that can be counted apart from what follows: it ends
  /// with a line whose line feed no word crosses. 0 if there is none.
  static size_t WholeLines(std::string_view text);

  int64_t total() const { return total_; }  ///< words
  int64_t bytes() const { return bytes_; }  ///< of all of them together

  /// Looked up by views, so that only a new word is copied.
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return std::hash<std::string_view>()(word); }
  };
  using Table = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;
  const Table& counts() const { return counts_; }

 private:
  Table counts_;
  int64_t total_ = 0, bytes_ = 0;
};

struct BytePairTraining {
  /// Ids in all, control tokens included. Fewer come out if the texts have too few pairs.
  int64_t vocab_size = 4096;
  int64_t min_count = 2;  ///< a pair seen less often is not merged
  /// No token has more than one ASCII digit: what a small model needs to calculate.
  bool single_digits = false;
};

struct TrainedBytePairs {
  TokenizerFile file;
  int64_t tokens = 0;  ///< that the texts have now
};

/// The smallest vocabulary: the bytes and the control tokens.
int64_t MinTrainedVocabulary();

/// Trains byte-level BPE: begins with the 256 bytes and merges, again and again, the neighbouring
/// tokens of a word that occur most often together; of equals those with the lower left id, then
/// the lower right one. A pair whose bytes are a token already is passed over, so each token has
/// one merge; tokens grow to kLongestTrainedToken bytes.
///
/// Ids: 0 BOS, 1 EOS, 2 padding, 3 + b for byte b, then the merges in their order, then the
/// other control tokens of the prompt format (Tokenizer::ByteControlTokens()).
///
/// Time: the words once, and for every merge the words that hold the pair. `progress` is told the
/// merges so far and wanted; false stops: throws Error(kCancelled). Throws Error(kInvalidArgument)
/// for settings out of range.
TrainedBytePairs TrainBytePairs(const WordCounts& words, const BytePairTraining& settings,
                                const std::function<bool(int64_t, int64_t)>& progress = nullptr);
constexpr size_t kLongestTrainedToken = 128;

}  // namespace toaster
