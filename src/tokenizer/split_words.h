#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// Cuts text into the words that byte-pair merges never cross: a sequence of "isolated" splits by
/// regular expressions. The matches of one expression and the stretches between
/// them are each a piece of text of its own to the next.
///
/// The three expressions of DeepSeek V3 and V4 run as one hand-written scanner, whose tables are
/// those of the Unicode version the models were trained with, whatever libraries the machine has.
/// Any other expressions run in PCRE2 with its just-in-time compiler, at a quarter of the speed.
/// `\s` means the White_Space property.
///
/// Bytes that are no well-formed UTF-8 are cut out before the expressions see anything: every run
/// of them is one word, and the text before and after it is split on its own. The words always tile
/// the text.
///
/// Immutable after construction: safe to use from any thread.
class WordSplitter {
 public:
  /// `expressions` in the order they apply; none means that the whole text is one word. `origin`
  /// names the file in messages. Throws Error(kUnsupported) for an expression PCRE2 refuses or that
  /// uses \S inside a class.
  /// `engine` is for tests, which compare the scanner with PCRE2.
  enum class Engine { kBest, kPcre2 };
  WordSplitter(const std::vector<std::string>& expressions, const std::string& origin,
               Engine engine = Engine::kBest);
  ~WordSplitter();
  WordSplitter(WordSplitter&&) noexcept;
  WordSplitter& operator=(WordSplitter&&) noexcept;

  /// Appends the end offset of every word of `text` (below 4 GiB) to `ends`, in order. Throws
  /// Error(kInvalidArgument) when an expression gives up on the text (the hand-written scanner
  /// never does).
  void Split(std::string_view text, std::vector<uint32_t>& ends) const;

 private:
  class Expression;
  void SplitWellFormed(std::string_view text, uint32_t begin, uint32_t end,
                       std::vector<uint32_t>& ends) const;
  std::vector<Expression> expressions_;
  bool deepseek_ = false;  ///< expressions_ is empty: the scanner does it
};

/// The three expressions, as tokenizer.json has them.
const std::vector<std::string>& DeepSeekExpressions();

/// The scanner for them: appends the ends of the words in [begin, end) of `text`, which must be
/// well-formed there. Linear in the length.
void SplitDeepSeekWords(std::string_view text, uint32_t begin, uint32_t end,
                        std::vector<uint32_t>& ends);

}  // namespace toaster
