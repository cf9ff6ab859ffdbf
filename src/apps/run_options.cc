#include "apps/run_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/error.h"

namespace toaster {

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

void AddRunOptions(CLI::App& command, RunOptions& options) {
  AddEngineOptions(command, options.engine);
  AddNumericsOption(command, options.engine);
  AddCacheOptions(command, options.cache);
  const auto variable = [](const char* name) { return std::string("TOASTER_") + name; };
  auto* prompt =
      command.add_option("-p,--prompt", options.prompt, "The prompt")->envname(variable("PROMPT"));
  auto* file =
      command
          .add_option("-f,--file", options.file,
                      "Read the prompt from this file (default: standard input; a chat if that is "
                      "a terminal)")
          ->envname(variable("FILE"));
  auto* tokens = command
                     .add_option("--tokens", options.tokens,
                                 "The prompt as token ids with commas or blanks between")
                     ->envname(variable("TOKENS"));
  prompt->excludes(file)->excludes(tokens);
  file->excludes(tokens);
  command
      .add_option("-n,--max-tokens", options.generate.max_tokens,
                  "Longest reply in tokens (default: 256; in a chat what the context allows)")
      ->envname(variable("MAX_TOKENS"))
      ->check(CLI::NonNegativeNumber);
  command
      .add_flag("--chat", options.chat,
                "Take the prompt for a message in a chat: the answer goes to standard output, "
                "the thinking, if that is a terminal, to standard error")
      ->envname(variable("CHAT"));
  command.add_option("--system", options.system, "System message of a chat")
      ->envname(variable("SYSTEM"));
  command
      .add_option("--think", options.think,
                  "Thinking in a chat: off, on (default), low, high or max; what a level means is "
                  "up to the model")
      ->envname(variable("THINK"))
      ->check(CLI::IsMember({"off", "on", "low", "high", "max"}));
  command.add_flag("--fold", options.fold, "Show the thinking as one line that counts its tokens")
      ->envname(variable("FOLD"));
  SamplingOptions& sampling = options.generate.sampling;
  command.add_option("--temperature", sampling.temperature, "0 takes the most likely token")
      ->envname(variable("TEMPERATURE"))
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "Keep the k most likely tokens; 0 keeps all")
      ->envname(variable("TOP_K"))
      ->capture_default_str();
  command
      .add_option("--top-p", sampling.top_p,
                  "Keep the most likely tokens that reach this share together")
      ->envname(variable("TOP_P"))
      ->capture_default_str();
  command
      .add_option("--min-p", sampling.min_p,
                  "Keep tokens at least this share as likely as the most likely one")
      ->envname(variable("MIN_P"))
      ->capture_default_str();
  command
      .add_option("--presence-penalty", sampling.presence_penalty,
                  "Taken from the logit of every token in the reply")
      ->envname(variable("PRESENCE_PENALTY"))
      ->capture_default_str();
  command
      .add_option("--frequency-penalty", sampling.frequency_penalty,
                  "Taken once per occurrence in the reply")
      ->envname(variable("FREQUENCY_PENALTY"))
      ->capture_default_str();
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Divides the logits of tokens seen in prompt or reply")
      ->envname(variable("REPETITION_PENALTY"))
      ->capture_default_str();
  command
      .add_option("--logit-bias", options.logit_bias,
                  "TOKEN:BIAS, added to the token's logit; repeatable")
      ->envname(variable("LOGIT_BIAS"))
      ->allow_extra_args(false);
  command.add_option("--seed", options.seed, "Same seed, same text; negative picks one")
      ->envname(variable("SEED"))
      ->capture_default_str();
  command.add_option("--stop", options.stop, "End the reply before this text; repeatable")
      ->envname(variable("STOP"))
      ->allow_extra_args(false);
  command
      .add_flag("--ignore-eos", options.generate.ignore_eos, "Go on after the end-of-text token")
      ->envname(variable("IGNORE_EOS"));
  command
      .add_flag("--no-bos", options.no_bos,
                "Do not put the beginning-of-text token before the prompt")
      ->envname(variable("NO_BOS"));
  command.add_flag("-q,--quiet", options.quiet, "No progress and no figures on standard error")
      ->envname(variable("QUIET"));
  command
      .add_flag("--digest", options.digest,
                "Print a digest of all logits computed, as the last line")
      ->envname(variable("DIGEST"));
}

}  // namespace toaster
