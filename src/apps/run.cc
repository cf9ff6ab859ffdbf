#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <random>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/text_input.h"
#include "base/digest.h"
#include "base/error.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "engine/stop_strings.h"

namespace toaster {
namespace {

constexpr int kInterruptedExitCode = 130;

struct Options {
  EngineOptions engine;
  std::string prompt;
  std::string file;
  std::string tokens;
  int64_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  std::vector<std::string> logit_bias;
  int64_t seed = -1;
  bool ignore_eos = false;
  bool no_bos = false;
  bool quiet = false;
  bool digest = false;
};

std::atomic<bool> interrupted = false;

// The first Ctrl-C asks to stop; a second one kills, since the handler is gone then.
void OnInterrupt(int) {
  interrupted = true;
  std::signal(SIGINT, SIG_DFL);
}

class Clock {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// One line on standard error that is rewritten while a prompt is read.
class ProgressLine {
 public:
  explicit ProgressLine(bool on) : on_(on && isatty(STDERR_FILENO)) {}
  void Show(int64_t done, int64_t total) {
    if (!on_ || clock_.Seconds() < 0.5) return;
    const double rate = static_cast<double>(done) / clock_.Seconds();
    fmt::print(stderr, "\rprompt: {} of {} tokens, {:.1f} tokens/s, {:.0f} s left \033[K", done,
               total, rate, static_cast<double>(total - done) / rate);
    shown_ = true;
  }
  void Clear() {
    if (shown_) fmt::print(stderr, "\r\033[K");
    shown_ = false;
  }

 private:
  bool on_, shown_ = false;
  Clock clock_;
};

double PeakMemoryGib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

std::map<int32_t, float> ParseLogitBias(const std::vector<std::string>& items) {
  std::map<int32_t, float> bias;
  for (const std::string& item : items) {
    const size_t colon = item.find(':');
    size_t used = 0;
    try {
      if (colon == std::string::npos) throw std::invalid_argument(item);
      const std::vector<int32_t> token = ParseTokenIds(std::string_view(item).substr(0, colon));
      const float value = std::stof(item.substr(colon + 1), &used);
      if (token.size() != 1 || used != item.size() - colon - 1) throw std::invalid_argument(item);
      bias[token[0]] = value;
    } catch (const std::logic_error&) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("--logit-bias {}: write TOKEN:BIAS, for example 17:-2.5", item));
    }
  }
  return bias;
}

std::vector<int32_t> PromptTokens(const Options& options, const Config& config,
                                  const Tokenizer* tokenizer) {
  if (!options.tokens.empty()) return ParseTokenIds(options.tokens);
  const std::string text = !options.prompt.empty() ? options.prompt : ReadInput(options.file);
  std::vector<int32_t> tokens;
  if (config.bos_token_id >= 0 && !options.no_bos)
    tokens.push_back(static_cast<int32_t>(config.bos_token_id));
  tokenizer->Encode(text, ControlTokens::kAsText, tokens);
  return tokens;
}

int Run(Options options) {
  const auto running = StartModel(options.engine);
  const Config& config = running->config();
  // A model with too few tokens for text can still be fed token ids.
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = std::make_unique<Tokenizer>(ModelTokenizer(running->loaded()));
  } catch (const Error& error) {
    if (options.tokens.empty() || error.code() != ErrorCode::kUnsupported) throw;
  }
  std::vector<int32_t> tokens = PromptTokens(options, config, tokenizer.get());
  if (options.seed < 0) options.seed = std::random_device{}();
  options.sampling.seed = static_cast<uint64_t>(options.seed);
  options.sampling.logit_bias = ParseLogitBias(options.logit_bias);
  Sampler sampler(options.sampling, config.vocab_size);
  sampler.AcceptPrompt(tokens);
  Session session(running->model(), options.engine.chunk);
  StopStrings stops(options.stop);
  Digest digest;
  std::signal(SIGINT, OnInterrupt);

  const auto prompt_tokens = static_cast<int64_t>(tokens.size());
  const Clock prefill_clock;
  ProgressLine progress(!options.quiet);
  try {
    session.Sync(tokens, [&](int64_t done, int64_t total) {
      progress.Show(done, total);
      return !interrupted;
    });
  } catch (const Error& error) {
    progress.Clear();
    if (error.code() != ErrorCode::kCancelled) throw;
    fmt::print(stderr, "{}\n", error.what());
    return kInterruptedExitCode;
  }
  progress.Clear();
  const double prefill_seconds = prefill_clock.Seconds();
  digest.AddValues(session.logits());

  std::unique_ptr<TokenDecoder> decoder =
      tokenizer ? std::make_unique<TokenDecoder>(*tokenizer) : nullptr;
  const auto show = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const Clock decode_clock;
  int64_t generated = 0;
  std::string reason = "length";
  while (generated < options.max_tokens) {
    if (interrupted) {
      reason = "interrupted";
      break;
    }
    const int32_t token = sampler.Sample(session.logits(), static_cast<int64_t>(tokens.size()));
    ++generated;
    if (token == config.eos_token_id && !options.ignore_eos) {
      reason = "end of text";
      break;
    }
    sampler.Accept(token);
    tokens.push_back(token);
    show(decoder ? stops.Push(decoder->Push(token)) : fmt::format("{} ", token));
    if (stops.found()) {
      reason = "stop string";
      break;
    }
    if (generated == options.max_tokens) break;
    session.Sync(tokens);
    digest.AddValues(session.logits());
  }
  if (decoder) show(stops.Push(decoder->Finish()) + stops.Finish());
  show("\n");
  const double decode_seconds = decode_clock.Seconds();
  if (!options.quiet) {
    fmt::print(stderr,
               "prompt {} tokens, {:.1f} tokens/s; reply {} tokens, {:.1f} tokens/s, ended by {}; "
               "seed {}; peak memory {:.2f} "
               "GiB, cache {:.2f} MiB; {}\n",
               prompt_tokens, static_cast<double>(prompt_tokens) / prefill_seconds, generated,
               static_cast<double>(generated) / decode_seconds, reason, options.seed,
               PeakMemoryGib(), static_cast<double>(session.cache().allocated_bytes()) / (1 << 20),
               running->backend().name());
  }
  if (options.digest) PrintDigest(digest.Hex());
  return reason == "interrupted" ? kInterruptedExitCode : 0;
}

}  // namespace

void AddRunCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("run", "Continue a prompt");
  auto options = std::make_shared<Options>();
  AddEngineOptions(*command, options->engine);
  AddNumericsOption(*command, options->engine);
  const auto variable = [](const char* name) { return std::string("TOASTER_") + name; };
  auto* prompt = command->add_option("-p,--prompt", options->prompt, "The prompt")
                     ->envname(variable("PROMPT"));
  auto* file = command
                   ->add_option("-f,--file", options->file,
                                "Read the prompt from this file (default: standard input)")
                   ->envname(variable("FILE"));
  auto* tokens = command
                     ->add_option("--tokens", options->tokens,
                                  "The prompt as token ids with commas or blanks between")
                     ->envname(variable("TOKENS"));
  prompt->excludes(file)->excludes(tokens);
  file->excludes(tokens);
  command->add_option("-n,--max-tokens", options->max_tokens, "Longest reply in tokens")
      ->envname(variable("MAX_TOKENS"))
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  SamplingOptions& sampling = options->sampling;
  command->add_option("--temperature", sampling.temperature, "0 takes the most likely token")
      ->envname(variable("TEMPERATURE"))
      ->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "Keep the k most likely tokens; 0 keeps all")
      ->envname(variable("TOP_K"))
      ->capture_default_str();
  command
      ->add_option("--top-p", sampling.top_p,
                   "Keep the most likely tokens that reach this share together")
      ->envname(variable("TOP_P"))
      ->capture_default_str();
  command
      ->add_option("--min-p", sampling.min_p,
                   "Keep tokens at least this share as likely as the most likely one")
      ->envname(variable("MIN_P"))
      ->capture_default_str();
  command
      ->add_option("--presence-penalty", sampling.presence_penalty,
                   "Taken from the logit of every token in the reply")
      ->envname(variable("PRESENCE_PENALTY"))
      ->capture_default_str();
  command
      ->add_option("--frequency-penalty", sampling.frequency_penalty,
                   "Taken once per occurrence in the reply")
      ->envname(variable("FREQUENCY_PENALTY"))
      ->capture_default_str();
  command
      ->add_option("--repetition-penalty", sampling.repetition_penalty,
                   "Divides the logits of tokens seen in prompt or reply")
      ->envname(variable("REPETITION_PENALTY"))
      ->capture_default_str();
  command
      ->add_option("--logit-bias", options->logit_bias,
                   "TOKEN:BIAS, added to the token's logit; repeatable")
      ->envname(variable("LOGIT_BIAS"));
  command->add_option("--seed", options->seed, "Same seed, same text; negative picks one")
      ->envname(variable("SEED"))
      ->capture_default_str();
  command->add_option("--stop", options->stop, "End the reply before this text; repeatable")
      ->envname(variable("STOP"));
  command->add_flag("--ignore-eos", options->ignore_eos, "Go on after the end-of-text token")
      ->envname(variable("IGNORE_EOS"));
  command
      ->add_flag("--no-bos", options->no_bos,
                 "Do not put the beginning-of-text token before the prompt")
      ->envname(variable("NO_BOS"));
  command->add_flag("-q,--quiet", options->quiet, "No progress and no figures on standard error")
      ->envname(variable("QUIET"));
  command
      ->add_flag("--digest", options->digest,
                 "Print a digest of all logits computed, as the last line")
      ->envname(variable("DIGEST"));
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace toaster
