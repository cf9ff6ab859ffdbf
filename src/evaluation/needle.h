#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace toaster {

/// A pass key hidden in a long text.
struct Needle {
  std::string text;   ///< filler, the sentence with the key, filler, and the question
  std::string key;    ///< five digits
  int64_t lines = 0;  ///< of filler
};

struct NeedleOptions {
  int64_t length = 4096;  ///< tokens that the prompt has at most
  double depth = 0.5;     ///< 0: the key comes first, 1: last
  uint64_t seed = 0;
  uint64_t number = 0;  ///< of the case: with the seed it decides key and beginning of the filler
  /// The sentences between which the key hides, again and again in this order. Empty: some of our
  /// own.
  std::vector<std::string> filler;
};

/// How many tokens a prompt with this text has.
using PromptLength = std::function<int64_t(const std::string& text)>;

/// The longest text with as much filler as fits. `question` follows it: "\n\nWhat is the pass key?"
/// for a chat, "\n\nThe pass key is" for a continuation. Throws Error(kInvalidArgument) if not even
/// the sentence with the key fits.
Needle MakeNeedle(const NeedleOptions& options, const std::string& question,
                  const PromptLength& prompt_length);

}  // namespace toaster
