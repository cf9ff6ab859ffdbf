#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "chat/prompt_texts.h"
#include "engine/running_model.h"
#include "evaluation/proportion.h"
#include "tokenizer/tokenizer.h"

namespace toaster {

/// Told how much of the work is done; false stops it: Error(kCancelled).
using EvaluationProgress = std::function<bool(int64_t done, int64_t total)>;

/// The natural logarithms of the probabilities of tokens[first], tokens[first + 1], ..., each given
/// all before it. `cache` has seen nothing or the tokens before some place before `first`, and has
/// seen all but the last token after. `first` is at least 1.
std::vector<double> TokenLogProbabilities(Model& model, std::span<const int32_t> tokens,
                                          int64_t first, SequenceCache& cache, int64_t chunk);

struct PerplexityOptions {
  int64_t window = 4096;  ///< tokens a prediction may look back at, BOS included
  int64_t stride = 2048;  ///< from one window's beginning to the next one's
  int64_t chunk = 2048;   ///< tokens per forward pass; changes no number
};

struct Perplexity {
  int64_t tokens = 0;  ///< that were predicted
  int64_t bytes = 0;   ///< of them
  double log_probability = 0;
  double perplexity() const;     ///< per token
  double bits_per_byte() const;  ///< does not depend on the tokenizer
};

/// Predicts every token of `text` once: in windows that overlap, each counting what the one before
/// did not, so all but the first window's tokens see at least window - stride tokens. Every window
/// begins with BOS; for a model without one, the very first token is not counted. Throws
/// Error(kInvalidArgument) for a text without tokens or a stride that is not in [1, window - 1].
Perplexity MeasurePerplexity(RunningModel& running, const Tokenizer& tokenizer,
                             std::string_view text, const PerplexityOptions& options,
                             const EvaluationProgress& progress = nullptr);

/// A question with several possible continuations, one of which is right.
struct ChoiceCase {
  std::vector<int32_t> context;               ///< tokens before all of them
  std::vector<std::vector<int32_t>> choices;  ///< tokens of each
  std::vector<int64_t> bytes;                 ///< of each
  int64_t answer = 0;
};

/// Reads lines of {"context": text, "choices": [text, ...], "answer": index}, where a choice is
/// what follows the context as it stands, or of {"messages": [...], "choices": ..., "answer": ...},
/// where it is an answer of the assistant. Context and choice are tokenised together and parted at
/// the first token that differs from the context's own. Throws Error(kInvalidArgument) naming
/// `origin` and the line.
std::vector<ChoiceCase> ParseChoiceCases(std::string_view json_lines, const std::string& origin,
                                         const Config& config, const Tokenizer& tokenizer,
                                         const PromptTexts& texts);

/// The summed logarithm of each choice's probability.
std::vector<double> ScoreChoices(RunningModel& running, const ChoiceCase& choice_case,
                                 int64_t chunk);

/// The place of the largest score, the first of equals; scores are divided by `bytes` if given.
int64_t BestChoice(std::span<const double> scores, std::span<const int64_t> bytes = {});

}  // namespace toaster
