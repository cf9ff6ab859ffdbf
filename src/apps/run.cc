#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <random>

#include "apps/chat_session.h"
#include "apps/commands.h"
#include "apps/interactive_chat.h"
#include "apps/interrupt.h"
#include "apps/reply_view.h"
#include "apps/run_options.h"
#include "apps/text_input.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/units.h"
#include "engine/stop_strings.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr int kInterruptedExitCode = 130;
constexpr int64_t kDefaultMaxTokens = 256;

void Show(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

bool HasPrompt(const RunOptions& options) {
  return !options.prompt.empty() || !options.file.empty() || !options.tokens.empty();
}

std::string PromptText(const RunOptions& options) {
  return options.prompt.empty() ? ReadInput(options.file) : options.prompt;
}

std::vector<int32_t> PromptTokens(const RunOptions& options, const Config& config,
                                  const Tokenizer* tokenizer) {
  if (!options.tokens.empty()) return ParseTokenIds(options.tokens);
  std::vector<int32_t> tokens;
  if (config.bos_token_id >= 0 && !options.no_bos)
    tokens.push_back(static_cast<int32_t>(config.bos_token_id));
  tokenizer->Encode(PromptText(options), ControlTokens::kAsText, tokens);
  return tokens;
}

/// Hooks for a run that ends with its one reply.
GenerateHooks OneShotHooks(ProgressLine& progress, Digest& digest) {
  GenerateHooks hooks;
  hooks.progress = [&](int64_t done, int64_t total) { progress.Show(done, total); };
  hooks.prompt_done = [&] { progress.Clear(); };
  hooks.logits = [&](std::span<const float> logits) { digest.AddValues(logits); };
  hooks.interrupted = [] { return InterruptScope::Raised(); };
  return hooks;
}

/// Prints what a one-shot run ends with; returns the exit code.
int EndOneShot(const RunOptions& options, const Generated& generated, RunningModel& running,
               const Session& session, Digest& digest) {
  if (generated.end == GenerateEnd::kInterruptedPrompt) {
    fmt::print(stderr, "stopped after {} of {} tokens\n", generated.read_tokens,
               generated.prompt_tokens);
    return kInterruptedExitCode;
  }
  if (!options.quiet) {
    if (session.stored_tokens() > 0) {
      fmt::print(stderr, "{} tokens from {}, {} read\n", session.stored_tokens(),
                 options.cache.directory,
                 BytesText(static_cast<double>(session.stored_bytes_read())));
    }
    fmt::print(stderr,
               "prompt {} tokens, {:.1f} tokens/s; reply {} tokens, {:.1f} tokens/s, ended by {}; "
               "seed {}; {}; {}\n",
               generated.prompt_tokens, generated.PrefillRate(), generated.sampled_tokens,
               generated.DecodeRate(), GenerateEndName(generated.end), options.seed,
               MemoryText(session.cache()), running.backend().name());
  }
  if (options.digest) PrintDigest(digest.Hex());
  return generated.end == GenerateEnd::kInterrupted ? kInterruptedExitCode : 0;
}

/// Continues the prompt as it is.
int RunContinuation(const RunOptions& options, RunningModel& running, PrefixStore* store) {
  const Config& config = running.config();
  // A model with too few tokens for text can still be fed token ids.
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = std::make_unique<Tokenizer>(ModelTokenizer(options.engine, running.loaded()));
  } catch (const Error& error) {
    if (options.tokens.empty() || error.code() != ErrorCode::kUnsupported) throw;
  }
  const std::vector<int32_t> tokens = PromptTokens(options, config, tokenizer.get());
  Session session(running.model(), running.plan().chunk, store);
  StopStrings stops(options.stop);
  const std::unique_ptr<TokenDecoder> decoder =
      tokenizer ? std::make_unique<TokenDecoder>(*tokenizer) : nullptr;
  Digest digest;
  const InterruptScope interrupts(InterruptScope::Second::kKills);
  ProgressLine progress(!options.quiet);
  GenerateHooks hooks = OneShotHooks(progress, digest);
  hooks.token = [&](int32_t token) {
    Show(decoder ? stops.Push(decoder->Push(token)) : fmt::format("{} ", token));
    return !stops.found();
  };
  const Generated generated = Generate(session, config, tokens, options.generate, hooks);
  progress.Clear();
  if (generated.end != GenerateEnd::kInterruptedPrompt) {
    if (decoder) Show(stops.Push(decoder->Finish()) + stops.Finish());
    Show("\n");
  }
  return EndOneShot(options, generated, running, session, digest);
}

ChatSession StartChat(const RunOptions& options, RunningModel& running, PrefixStore* store) {
  PromptTexts texts = ModelPromptTexts(options.engine, running.loaded());
  for (const std::string& warning : texts.warnings()) fmt::print(stderr, "note: {}\n", warning);
  ChatSession chat(running, ModelTokenizer(options.engine, running.loaded()), std::move(texts),
                   running.plan().chunk, options.generate, options.stop, store);
  const bool level = !options.think.empty() && options.think != "on" && options.think != "off";
  chat.SetThinking(options.think != "off", level ? ParseEffort(options.think) : Effort::kNone);
  if (!options.system.empty()) chat.SetSystem(options.system);
  return chat;
}

/// Answers one message. Standard output gets the answer alone, so that it can be piped on.
int RunOneAnswer(const RunOptions& options, RunningModel& running, PrefixStore* store) {
  ChatSession chat = StartChat(options, running, store);
  chat.AddUserMessage(ReplaceIllFormed(PromptText(options)));
  Digest digest;
  const InterruptScope interrupts(InterruptScope::Second::kKills);
  ProgressLine progress(!options.quiet);
  const bool show_thinking = !options.quiet && isatty(STDERR_FILENO);
  ReplyView thinking(WantsColour(STDERR_FILENO), options.fold);
  bool thought = false;
  const auto end_thinking = [&] {
    if (thought) fmt::print(stderr, "{}\n", thinking.Finish(chat.reasoning_tokens()));
    thought = false;
  };
  const Generated& generated =
      chat.Reply(OneShotHooks(progress, digest), [&](const ReplyEvent& event) {
        if (event.kind == ReplyEvent::Kind::kReasoning) {
          if (!show_thinking) return;
          fmt::print(stderr, "{}", thinking.Show(event, chat.reasoning_tokens()));
          thought = true;
          return;
        }
        end_thinking();
        if (event.kind == ReplyEvent::Kind::kContent) {
          Show(isatty(STDOUT_FILENO) ? TerminalText(event.text) : event.text);
        }
      });
  progress.Clear();
  end_thinking();
  if (generated.end != GenerateEnd::kInterruptedPrompt) Show("\n");
  return EndOneShot(options, generated, running, chat.session(), digest);
}

int Run(RunOptions options) {
  const bool interactive = !HasPrompt(options) && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
  if (!interactive && !options.chat &&
      (!options.system.empty() || !options.think.empty() || options.fold)) {
    throw Error(ErrorCode::kInvalidArgument,
                "--system, --think and --fold are for a chat; add --chat");
  }
  if (options.chat && !options.tokens.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "--tokens continues token ids as they are; leave --chat out");
  }
  if (options.seed < 0) options.seed = std::random_device{}();
  options.generate.sampling.seed = static_cast<uint64_t>(options.seed);
  options.generate.sampling.logit_bias = ParseLogitBias(options.logit_bias);
  if (options.generate.max_tokens < 0 && !interactive && !options.chat)
    options.generate.max_tokens = kDefaultMaxTokens;
  const auto running = StartModel(options.engine);
  const auto store = OpenStore(options.cache, *running, [](const std::string& line) {
    fmt::print(stderr, "note: {}\n", line);
  });
  if (interactive) {
    ChatSession chat = StartChat(options, *running, store.get());
    const std::string& model = options.engine.model;
    return RunInteractiveChat(
        chat, *running, {model.empty() ? "the built-in model" : model, options.fold, options.seed});
  }
  return options.chat ? RunOneAnswer(options, *running, store.get())
                      : RunContinuation(options, *running, store.get());
}

}  // namespace

void AddRunCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "run",
      "Chat with a model in the terminal; with a prompt (-p, -f, --tokens, or standard input that "
      "is no terminal), continue it as plain text, or answer it as a message (--chat)");
  auto options = std::make_shared<RunOptions>();
  AddRunOptions(*command, *options);
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace toaster
