#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "apps/chat_session.h"
#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/generate.h"
#include "apps/interrupt.h"
#include "apps/status_line.h"
#include "apps/text_input.h"
#include "base/error.h"
#include "base/new_file.h"
#include "chat/render_prompt.h"
#include "evaluation/cases.h"
#include "evaluation/needle.h"
#include "evaluation/score_text.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

using nlohmann::ordered_json;

constexpr int kInterruptedExitCode = 130;
constexpr int64_t kDefaultWindow = 4096;
/// A continuation has come to the key by then, or never will.
constexpr int64_t kKeyTokens = 24;

struct Options {
  EngineOptions engine;
  std::string text;
  int64_t window = 0, stride = 0;
  std::string choices;
  std::vector<int64_t> needle;
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  int64_t needle_cases = 4;
  std::string filler;
  std::string form = "auto";
  std::vector<std::string> tasks;
  int64_t limit = 0;
  int64_t max_tokens = 512;
  uint64_t seed = 0;
  std::string log;
  bool json = false;
};

void AddProportion(const Proportion& proportion, ordered_json& result) {
  const Proportion::Interval interval = proportion.Wilson();
  result["count"] = proportion.count;
  result["right"] = proportion.right;
  result["accuracy"] = proportion.share();
  result["interval"] = {interval.low, interval.high};
}

ordered_json MessageJson(const Message& message) {
  ordered_json json = {{"role", RoleName(message.role)},
                       {"content", ReplaceIllFormed(message.content)}};
  if (!message.reasoning.empty()) json["reasoning_content"] = ReplaceIllFormed(message.reasoning);
  for (const ToolCall& call : message.tool_calls)
    json["tool_calls"].push_back(
        {{"name", call.name}, {"arguments", ReplaceIllFormed(call.arguments)}});
  return json;
}

/// One run of the command: the model, and the results as they come.
class Evaluation {
 public:
  explicit Evaluation(const Options& options)
      : options_(options),
        running_(StartModel(options.engine)),
        tokenizer_(ModelTokenizer(options.engine, running_->loaded())),
        texts_(ModelPromptTexts(options.engine, running_->loaded())),
        chunk_(running_->plan().chunk) {
    for (const std::string& warning : texts_.warnings()) fmt::print(stderr, "note: {}\n", warning);
  }

  /// Measures everything asked for; false if it was stopped.
  bool Run() {
    bool whole = true;
    try {
      if (!options_.text.empty()) MeasureText();
      if (!options_.choices.empty()) MeasureChoices();
      if (!options_.needle.empty()) MeasureNeedles();
      for (const std::string& file : options_.tasks) MeasureTasks(file);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCancelled) throw;
      whole = false;
    }
    status_.Clear();
    if (!options_.log.empty()) WriteWholeFile(options_.log, log_);
    if (options_.json) {
      const ordered_json report = {{"model", running_->loaded().checkpoint.origin()},
                                   {"complete", whole},
                                   {"results", results_}};
      fmt::print("{}\n", report.dump(2));
    }
    if (!whole) fmt::print(stderr, "stopped; what was measured until then counts\n");
    return whole;
  }

 private:
  void MeasureText() {
    const int64_t limit = running_->config().max_position_embeddings;
    PerplexityOptions options;
    options.window = options_.window > 0 ? options_.window
                     : limit > 0         ? std::min(kDefaultWindow, limit)
                                         : kDefaultWindow;
    options.stride =
        options_.stride > 0 ? options_.stride : std::max<int64_t>(1, options.window / 2);
    options.chunk = chunk_;
    const Perplexity result = MeasurePerplexity(
        *running_, tokenizer_, ReadInput(options_.text), options, [&](int64_t done, int64_t total) {
          status_.Show(fmt::format("{}: {} of {} tokens", options_.text, done, total));
          return !InterruptScope::Raised();
        });
    Add({{"kind", "text"},
         {"file", options_.text},
         {"tokens", result.tokens},
         {"bytes", result.bytes},
         {"window", options.window},
         {"stride", options.stride},
         {"perplexity", result.perplexity()},
         {"bits_per_byte", result.bits_per_byte()}},
        fmt::format("{}: perplexity {:.3f} per token, {:.4f} bits per byte ({} tokens of {} bytes; "
                    "windows of {} tokens, one every {})",
                    options_.text, result.perplexity(), result.bits_per_byte(), result.tokens,
                    result.bytes, options.window, options.stride));
  }

  void MeasureChoices() {
    const std::string& file = options_.choices;
    std::vector<ChoiceCase> cases =
        ParseChoiceCases(ReadInput(file), file, running_->config(), tokenizer_, texts_);
    Limit(cases);
    Proportion sum, per_byte;
    const auto finish = [&] {
      ordered_json result = {{"kind", "choices"}, {"file", file}};
      AddProportion(sum, result);
      AddProportion(per_byte, result["per_byte"]);
      Add(std::move(result), fmt::format("{}: {} right by probability; by probability per byte {}",
                                         file, sum.Text(), per_byte.Text()));
    };
    RunCases(file, cases.size(), finish, [&](size_t i) {
      const ChoiceCase& one = cases[i];
      const std::vector<double> scores = ScoreChoices(*running_, one, chunk_);
      sum.Add(BestChoice(scores) == one.answer);
      per_byte.Add(BestChoice(scores, one.bytes) == one.answer);
      Log({{"file", file}, {"case", i}, {"answer", one.answer}, {"scores", scores}});
    });
  }

  bool NeedleInChat() const {
    if (options_.form != "auto") return options_.form == "chat";
    return !texts_.Efforts().empty() && tokenizer_.ControlToken(kAssistantToken);
  }

  std::vector<std::string> FillerLines() const {
    std::vector<std::string> lines;
    if (options_.filler.empty()) return lines;
    std::istringstream text(ReadInput(options_.filler));
    for (std::string line; std::getline(text, line);) {
      if (line.find_first_not_of(" \t\r") != line.npos) lines.push_back(std::move(line));
    }
    return lines;
  }

  void MeasureNeedles() {
    const std::vector<std::string> filler = FillerLines();
    for (const int64_t length : options_.needle) {
      Proportion all;
      for (const double depth : options_.depths) {
        const std::string name = fmt::format("needle, {} tokens, depth {:.2f}", length, depth);
        Proportion found;
        int64_t longest = 0;
        const auto finish = [&] {
          ordered_json result = {{"kind", "needle"},
                                 {"form", NeedleInChat() ? "chat" : "text"},
                                 {"length", length},
                                 {"depth", depth},
                                 {"longest", longest}};
          AddProportion(found, result);
          Add(std::move(result), fmt::format("{}: {} found", name, found.Text()));
        };
        RunCases(name, static_cast<size_t>(options_.needle_cases), finish, [&](size_t i) {
          const bool right = FindNeedle({length, depth, options_.seed, i, filler}, longest);
          found.Add(right);
          all.Add(right);
        });
      }
      if (!options_.json && options_.depths.size() > 1)
        fmt::print("needle, {} tokens, all depths: {} found\n", length, all.Text());
    }
  }

  bool FindNeedle(const NeedleOptions& needle_options, int64_t& longest) {
    if (NeedleInChat()) {
      EvaluationCase one;
      one.check = Check::kPasskey;
      one.conversation.messages.resize(1);
      const auto prompt_length = [&](const std::string& text) {
        one.conversation.messages[0].content = text;
        return Length(one.conversation);
      };
      const Needle needle = MakeNeedle(needle_options, "\n\nWhat is the pass key?", prompt_length);
      longest = std::max(longest, prompt_length(needle.text));
      one.answer = needle.key;
      const CaseOutcome outcome = RunCase(one, Replies());
      LogOutcome("needle", one, needle_options.number, outcome);
      return outcome.right;
    }
    const auto tokens_of = [&](const std::string& text) {
      std::vector<int32_t> tokens;
      if (running_->config().bos_token_id >= 0)
        tokens.push_back(static_cast<int32_t>(running_->config().bos_token_id));
      tokenizer_.Encode(text, ControlTokens::kAsText, tokens);
      return tokens;
    };
    const Needle needle = MakeNeedle(
        needle_options, "\n\nThe pass key is",
        [&](const std::string& text) { return static_cast<int64_t>(tokens_of(text).size()); });
    const std::vector<int32_t> prompt = tokens_of(needle.text);
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
    Session session(running_->model(), chunk_);
    const Generated generated =
        Generate(session, running_->config(), prompt, Greedy(kKeyTokens), Hooks());
    const std::string reply = tokenizer_.Decode(Whole(generated).reply);
    Log({{"needle", needle.key}, {"reply", ReplaceIllFormed(reply)}});
    return FirstNumber(reply) == needle.key;
  }

  void MeasureTasks(const std::string& file) {
    std::vector<EvaluationCase> cases = ParseEvaluationCases(ReadInput(file), file);
    Limit(cases);
    struct Group {
      Check check;
      Proportion right, called, is_json;
    };
    std::map<std::string, Group> groups;
    const auto finish = [&] {
      for (const auto& [name, group] : groups) {
        ordered_json result = {{"kind", "tasks"}, {"file", file}, {"group", name}};
        AddProportion(group.right, result);
        std::string line = fmt::format("{}: {}: {} right", file, name, group.right.Text());
        if (group.check == Check::kCalculator) {
          AddProportion(group.called, result["called"]);
          line += fmt::format("; {} called as wanted", group.called.Text());
        } else if (group.check == Check::kJson) {
          AddProportion(group.is_json, result["is_json"]);
          line += fmt::format("; {} valid JSON", group.is_json.Text());
        }
        Add(std::move(result), line);
      }
    };
    RunCases(file, cases.size(), finish, [&](size_t i) {
      const CaseOutcome outcome = RunCase(cases[i], Replies());
      Group& group = groups[cases[i].group];
      group.check = cases[i].check;
      group.right.Add(outcome.right);
      group.called.Add(outcome.called);
      group.is_json.Add(outcome.is_json);
      LogOutcome(file, cases[i], i, outcome);
    });
  }

  /// Runs `count` cases; `finish` adds the result, also of those before the command was stopped.
  void RunCases(const std::string& name, size_t count, const std::function<void()>& finish,
                const std::function<void(size_t)>& run) {
    size_t i = 0;
    try {
      for (; i < count; ++i) {
        if (InterruptScope::Raised()) throw Error(ErrorCode::kCancelled, "stopped");
        status_.Show(fmt::format("{}: case {} of {}", name, i + 1, count));
        run(i);
      }
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled && i > 0) finish();
      if (error.code() == ErrorCode::kCancelled) throw;
      throw Error(error.code(), fmt::format("{}: case {}: {}", name, i + 1, error.what()));
    }
    finish();
  }

  template <typename Case>
  void Limit(std::vector<Case>& cases) const {
    const auto limit = static_cast<size_t>(options_.limit);
    if (limit > 0 && cases.size() > limit)
      cases.erase(cases.begin() + static_cast<ptrdiff_t>(limit), cases.end());
  }

  /// Answers the turns of one case, always with the likeliest token.
  ReplyFunction Replies() {
    const auto chat =
        std::make_shared<ChatSession>(*running_, tokenizer_, texts_, chunk_,
                                      Greedy(options_.max_tokens), std::vector<std::string>());
    return [this, chat](const Conversation& conversation) {
      chat->SetConversation(conversation);
      Whole(chat->Reply(Hooks(), [](const ReplyEvent&) {}));
      return chat->conversation().messages.back();
    };
  }

  static GenerateOptions Greedy(int64_t max_tokens) {
    GenerateOptions options;
    options.sampling.temperature = 0;
    options.max_tokens = max_tokens;
    return options;
  }

  static GenerateHooks Hooks() {
    GenerateHooks hooks;
    hooks.interrupted = [] { return InterruptScope::Raised(); };
    return hooks;
  }

  /// A reply that the user stopped is no reply.
  static const Generated& Whole(const Generated& generated) {
    if (generated.end == GenerateEnd::kInterrupted ||
        generated.end == GenerateEnd::kInterruptedPrompt)
      throw Error(ErrorCode::kCancelled, "stopped");
    return generated;
  }

  int64_t Length(const Conversation& conversation) const {
    const Prompt prompt = RenderPrompt(conversation, texts_);
    return static_cast<int64_t>(EncodePrompt(prompt, tokenizer_).tokens.size());
  }

  void Add(ordered_json result, const std::string& line) {
    status_.Clear();
    if (!options_.json) {
      fmt::print("{}\n", line);
      std::fflush(stdout);
    }
    results_.push_back(std::move(result));
  }

  void Log(const ordered_json& entry) {
    if (!options_.log.empty()) log_ += entry.dump() + "\n";
  }

  void LogOutcome(const std::string& file, const EvaluationCase& one, size_t number,
                  const CaseOutcome& outcome) {
    ordered_json replies = ordered_json::array();
    for (const Message& message : outcome.replies) replies.push_back(MessageJson(message));
    Log({{"file", file},
         {"case", number},
         {"group", one.group},
         {"right", outcome.right},
         {"wanted", one.check == Check::kJson ? one.value : one.answer},
         {"replies", replies}});
  }

  const Options& options_;
  const std::unique_ptr<RunningModel> running_;
  const Tokenizer tokenizer_;
  const PromptTexts texts_;
  const int64_t chunk_;
  StatusLine status_;
  ordered_json results_ = ordered_json::array();
  std::string log_;
};

void AddEvalOptions(CLI::App& command, Options& options) {
  AddEngineOptions(command, options.engine);
  command.add_option("--text", options.text, "Perplexity on this text, each token predicted once")
      ->envname("TOASTER_TEXT");
  command
      .add_option("--window", options.window,
                  "Tokens a prediction may look back at (default: 4096, or the model's limit)")
      ->envname("TOASTER_WINDOW")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--stride", options.stride,
                  "Tokens between the beginnings of two windows (default: half a window)")
      ->envname("TOASTER_STRIDE")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--choices", options.choices,
                  "Multiple choice from a JSONL file of {\"context\": text or \"messages\": [...], "
                  "\"choices\": [text, ...], \"answer\": place}")
      ->envname("TOASTER_CHOICES");
  command
      .add_option("--needle", options.needle,
                  "Find a pass key in contexts of so many tokens, for example 4096,16384")
      ->envname("TOASTER_NEEDLE")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command.add_option("--depths", options.depths, "Where it hides: 0 is the beginning, 1 the end")
      ->envname("TOASTER_DEPTHS")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--needle-cases", options.needle_cases, "Cases of each length and depth")
      ->envname("TOASTER_NEEDLE_CASES")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--filler", options.filler,
                  "The text around the pass key: the lines of this file, again and again (default: "
                  "some sentences of our own)")
      ->envname("TOASTER_FILLER");
  command
      .add_option("--form", options.form,
                  "Ask for the pass key in a chat, or as a text to continue (auto: a chat if the "
                  "model has prompt texts)")
      ->envname("TOASTER_FORM")
      ->check(CLI::IsMember({"auto", "chat", "text"}))
      ->capture_default_str();
  command
      .add_option("--tasks", options.tasks,
                  "Conversations with checked answers from JSONL files (docs/formats/tasks.md)")
      ->envname("TOASTER_TASKS")
      ->delimiter(',');
  command.add_option("--limit", options.limit, "Use the first so many cases of a file (0: all)")
      ->envname("TOASTER_LIMIT")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--max-tokens", options.max_tokens, "Longest reply")
      ->envname("TOASTER_MAX_TOKENS")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--seed", options.seed, "Of the pass keys and their places")
      ->envname("TOASTER_SEED")
      ->capture_default_str();
  command
      .add_option("--log", options.log,
                  "Write every case with what the model answered to this JSONL file")
      ->envname("TOASTER_LOG");
  command.add_flag("--json", options.json, "Print one JSON object with all results")
      ->envname("TOASTER_JSON");
}

}  // namespace

void AddEvalCommand(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "eval",
      "Measure what a model can do: perplexity, multiple choice, pass keys in long contexts, tasks "
      "with checked answers. Replies take the likeliest token, so results repeat; intervals are "
      "Wilson's, for 95 %");
  AddEvalOptions(*command, *options);
  command->callback([options, &exit_code] {
    if (options->text.empty() && options->choices.empty() && options->needle.empty() &&
        options->tasks.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "nothing to measure; give --text, --choices, --needle or --tasks");
    }
    const InterruptScope interrupts(InterruptScope::Second::kKills);
    exit_code = Evaluation(*options).Run() ? 0 : kInterruptedExitCode;
  });
}

}  // namespace toaster
