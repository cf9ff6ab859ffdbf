#include "evaluation/score_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "chat/json_lines.h"
#include "chat/render_prompt.h"
#include "engine/log_probabilities.h"

namespace toaster {
namespace {

/// Rows whose logits are held at once: a vocabulary of 129,280 tokens makes half a megabyte each.
constexpr int64_t kLogitRows = 64;

void RunTokens(Model& model, std::span<const int32_t> tokens, SequenceCache& cache, int64_t chunk,
               Tensor& streams,
               const std::function<void(int64_t begin, int64_t rows)>& after_chunk) {
  for (int64_t begin = cache.length(); begin < static_cast<int64_t>(tokens.size());) {
    const int64_t rows = std::min(chunk, static_cast<int64_t>(tokens.size()) - begin);
    const SequenceChunk part{tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
                             &cache};
    model.Forward({&part, 1}, streams);
    after_chunk(begin, rows);
    begin += rows;
  }
}

std::vector<int32_t> Beginning(const Config& config) {
  if (config.bos_token_id < 0) return {};
  return {static_cast<int32_t>(config.bos_token_id)};
}

int64_t AnswerOf(const JsonValue& line, size_t choices) {
  const JsonValue* answer = line.Find("answer");
  int64_t place = -1;
  if (answer && answer->kind == JsonValue::Kind::kNumber) {
    const std::string& text = answer->text;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), place);
    if (error != std::errc() || end != text.data() + text.size()) place = -1;
  }
  if (place < 0 || place >= static_cast<int64_t>(choices)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("answer: has to be the place of the right choice, 0 to {}", choices - 1));
  }
  return place;
}

/// Sets context and choices to `context` with each of `texts` behind it.
void EncodeTogether(const std::string& context, const std::vector<std::string>& texts,
                    const Config& config, const Tokenizer& tokenizer, ChoiceCase& choice_case) {
  choice_case.context = Beginning(config);
  const size_t before = choice_case.context.size();
  tokenizer.Encode(context, ControlTokens::kAsText, choice_case.context);
  size_t shared = choice_case.context.size();
  for (const std::string& text : texts) {
    std::vector<int32_t> whole(choice_case.context.begin(),
                               choice_case.context.begin() + static_cast<ptrdiff_t>(before));
    tokenizer.Encode(context + text, ControlTokens::kAsText, whole);
    const auto differ = std::mismatch(choice_case.context.begin(), choice_case.context.end(),
                                      whole.begin(), whole.end());
    shared = std::min(shared, static_cast<size_t>(differ.first - choice_case.context.begin()));
    choice_case.choices.push_back(std::move(whole));
  }
  choice_case.context.resize(shared);
  for (std::vector<int32_t>& choice : choice_case.choices)
    choice.erase(choice.begin(), choice.begin() + static_cast<ptrdiff_t>(shared));
}

ChoiceCase ParseChoiceCase(const JsonValue& line, const Config& config, const Tokenizer& tokenizer,
                           const PromptTexts& prompt_texts) {
  const auto refuse = [&](const char* what) { throw Error(ErrorCode::kInvalidArgument, what); };
  ChoiceCase choice_case;
  const JsonValue* choices = line.Find("choices");
  if (!choices || !choices->is_array() || choices->items.empty())
    refuse("choices: has to be a list of texts");
  std::vector<std::string> texts;
  for (const JsonValue& choice : choices->items) {
    if (!choice.is_string() || choice.text.empty())
      refuse("choices: each has to be a text that is not empty");
    texts.push_back(choice.text);
    choice_case.bytes.push_back(static_cast<int64_t>(choice.text.size()));
  }
  choice_case.answer = AnswerOf(line, texts.size());
  if (line.Find("messages")) {
    const Prompt prompt = RenderPrompt(ParseConversation(line), prompt_texts);
    choice_case.context = EncodePrompt(prompt, tokenizer).tokens;
    for (const std::string& text : texts) {
      choice_case.choices.push_back(tokenizer.Encode(text));
      if (config.eos_token_id >= 0)
        choice_case.choices.back().push_back(static_cast<int32_t>(config.eos_token_id));
    }
    return choice_case;
  }
  const JsonValue* context = line.Find("context");
  if (!context || !context->is_string()) refuse("neither context nor messages");
  EncodeTogether(context->text, texts, config, tokenizer, choice_case);
  if (choice_case.context.empty()) refuse("context: leaves no token before the choices");
  return choice_case;
}

}  // namespace

std::vector<double> TokenLogProbabilities(Model& model, std::span<const int32_t> tokens,
                                          int64_t first, SequenceCache& cache, int64_t chunk) {
  CHECK(first >= 1 && cache.length() < first, "{} tokens seen, first is {}", cache.length(), first);
  std::vector<double> result;
  Tensor streams, part, logits;
  RunTokens(model, tokens.first(tokens.size() - 1), cache, chunk, streams,
            [&](int64_t begin, int64_t rows) {
              for (int64_t row = std::max<int64_t>(0, first - 1 - begin); row < rows;) {
                const int64_t count = std::min(kLogitRows, rows - row);
                part.Reshape({count, streams.extent(1), streams.extent(2)});
                std::copy_n(streams.Row(row), count * streams.width(), part.data());
                model.Logits(part, logits);
                for (int64_t i = 0; i < count; ++i, ++row) {
                  const int32_t token = tokens[static_cast<size_t>(begin + row + 1)];
                  const std::span values(logits.Row(i), static_cast<size_t>(logits.width()));
                  result.push_back(LogProbabilityOf(values, token).value);
                }
              }
            });
  return result;
}

double Perplexity::perplexity() const {
  return std::exp(-log_probability / static_cast<double>(tokens));
}

double Perplexity::bits_per_byte() const {
  return -log_probability / std::numbers::ln2 / static_cast<double>(bytes);
}

Perplexity MeasurePerplexity(RunningModel& running, const Tokenizer& tokenizer,
                             std::string_view text, const PerplexityOptions& options,
                             const EvaluationProgress& progress) {
  if (options.stride < 1 || options.stride >= options.window) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a stride of {} tokens; it has to be between 1 and the window of {} "
                            "less one",
                            options.stride, options.window));
  }
  const std::vector<int32_t> tokens = tokenizer.Encode(text);
  const std::vector<int32_t> beginning = Beginning(running.config());
  const auto bos = static_cast<int64_t>(beginning.size());
  const auto size = static_cast<int64_t>(tokens.size());
  Perplexity result;
  int64_t counted = 1 - bos;  // tokens of the text that were predicted, or can't be
  for (int64_t begin = 0; counted < size; begin += options.stride) {
    const int64_t end = std::min(size, begin + options.window - bos);
    std::vector<int32_t> window = beginning;
    window.insert(window.end(), tokens.begin() + begin, tokens.begin() + end);
    const auto cache = running.model().NewCache();
    for (const double value : TokenLogProbabilities(running.model(), window, bos + counted - begin,
                                                    *cache, options.chunk)) {
      result.log_probability += value;
      result.bytes +=
          static_cast<int64_t>(tokenizer.TokenBytes(tokens[static_cast<size_t>(counted++)]).size());
      ++result.tokens;
    }
    if (progress && !progress(counted, size))
      throw Error(ErrorCode::kCancelled,
                  fmt::format("stopped after {} of {} tokens", counted, size));
  }
  if (result.tokens == 0)
    throw Error(ErrorCode::kInvalidArgument, "the text has no token to predict");
  return result;
}

std::vector<ChoiceCase> ParseChoiceCases(std::string_view json_lines, const std::string& origin,
                                         const Config& config, const Tokenizer& tokenizer,
                                         const PromptTexts& texts) {
  std::vector<ChoiceCase> cases;
  ForEachJsonLine(json_lines, origin, [&](const JsonValue& line) {
    cases.push_back(ParseChoiceCase(line, config, tokenizer, texts));
  });
  return cases;
}

std::vector<double> ScoreChoices(RunningModel& running, const ChoiceCase& choice_case,
                                 int64_t chunk) {
  const std::span<const int32_t> context = choice_case.context;
  const auto cache = running.model().NewCache();
  Tensor streams;
  RunTokens(running.model(), context.first(context.size() - 1), *cache, chunk, streams,
            [](int64_t, int64_t) {});
  std::vector<double> scores;
  for (const std::vector<int32_t>& choice : choice_case.choices) {
    std::vector<int32_t> tokens(context.begin(), context.end());
    tokens.insert(tokens.end(), choice.begin(), choice.end());
    const std::vector<double> values = TokenLogProbabilities(
        running.model(), tokens, static_cast<int64_t>(context.size()), *cache->Fork(), chunk);
    scores.push_back(std::accumulate(values.begin(), values.end(), 0.0));
  }
  return scores;
}

int64_t BestChoice(std::span<const double> scores, std::span<const int64_t> bytes) {
  int64_t best = 0;
  const auto value = [&](int64_t i) {
    const auto place = static_cast<size_t>(i);
    return bytes.empty() ? scores[place] : scores[place] / static_cast<double>(bytes[place]);
  };
  for (int64_t i = 1; i < static_cast<int64_t>(scores.size()); ++i) {
    if (value(i) > value(best)) best = i;
  }
  return best;
}

}  // namespace toaster
