#include "apps/generate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/error.h"
#include "base/memory_use.h"

namespace toaster {
namespace {

/// Samples until something ends the reply; `tokens` grows with it.
GenerateEnd Decode(Session& session, const Config& config, const GenerateOptions& options,
                   const GenerateHooks& hooks, Sampler& sampler, std::vector<int32_t>& tokens,
                   Generated& generated) {
  const auto length = [&] { return static_cast<int64_t>(tokens.size()); };
  while (options.max_tokens < 0 || generated.sampled_tokens < options.max_tokens) {
    if (hooks.interrupted && hooks.interrupted()) return GenerateEnd::kInterrupted;
    const int32_t token = sampler.Sample(session.logits(), length());
    ++generated.sampled_tokens;
    if (token == config.eos_token_id && !options.ignore_eos) return GenerateEnd::kEndOfText;
    sampler.Accept(token);
    tokens.push_back(token);
    generated.reply.push_back(token);
    if (hooks.token && !hooks.token(token)) return GenerateEnd::kStopped;
    if (generated.sampled_tokens == options.max_tokens) break;
    if (config.max_position_embeddings > 0 && length() > config.max_position_embeddings)
      return GenerateEnd::kContextFull;
    session.Sync(tokens);
    if (hooks.logits) hooks.logits(session.logits());
  }
  return GenerateEnd::kLength;
}

}  // namespace

std::string_view GenerateEndName(GenerateEnd end) {
  switch (end) {
    case GenerateEnd::kEndOfText:
      return "end of text";
    case GenerateEnd::kStopped:
      return "stop string";
    case GenerateEnd::kLength:
      return "length";
    case GenerateEnd::kContextFull:
      return "full context";
    case GenerateEnd::kInterrupted:
    case GenerateEnd::kInterruptedPrompt:
      break;
  }
  return "interrupted";
}

Generated Generate(Session& session, const Config& config, std::vector<int32_t> prompt,
                   const GenerateOptions& options, const GenerateHooks& hooks,
                   std::optional<int64_t> stable) {
  Generated generated;
  generated.prompt_tokens = static_cast<int64_t>(prompt.size());
  if (config.max_position_embeddings > 0 &&
      generated.prompt_tokens > config.max_position_embeddings) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the prompt has {} tokens, and the model's longest sequence "
                            "(max_position_embeddings) is {}; shorten it",
                            generated.prompt_tokens, config.max_position_embeddings));
  }
  Sampler sampler(options.sampling, config.vocab_size);
  sampler.AcceptPrompt(prompt);
  const Clock prefill_clock;
  try {
    generated.reused_tokens = session.Sync(
        prompt,
        [&](int64_t done, int64_t total) {
          generated.read_tokens = total;
          if (hooks.progress) hooks.progress(done, total);
          return !(hooks.interrupted && hooks.interrupted());
        },
        stable);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    generated.reused_tokens = generated.prompt_tokens - generated.read_tokens;
    generated.read_tokens = static_cast<int64_t>(session.tokens().size()) - generated.reused_tokens;
    generated.end = GenerateEnd::kInterruptedPrompt;
    generated.prefill_seconds = prefill_clock.Seconds();
    session.Store();
    return generated;
  }
  generated.prefill_seconds = prefill_clock.Seconds();
  if (hooks.prompt_done) hooks.prompt_done();
  if (hooks.logits) hooks.logits(session.logits());
  const Clock decode_clock;
  generated.end = Decode(session, config, options, hooks, sampler, prompt, generated);
  generated.decode_seconds = decode_clock.Seconds();
  session.Store();
  return generated;
}

ProgressLine::ProgressLine(bool on) : on_(on && isatty(STDERR_FILENO)) {}

void ProgressLine::Show(int64_t done, int64_t total) {
  if (!on_ || clock_.Seconds() < 0.5) return;
  const double rate = static_cast<double>(done) / clock_.Seconds();
  fmt::print(stderr, "\rprompt: {} of {} tokens, {:.1f} tokens/s, {:.0f} s left \033[K", done,
             total, rate, static_cast<double>(total - done) / rate);
  shown_ = true;
}

void ProgressLine::Clear() {
  if (shown_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

std::string MemoryText(const SequenceCache& cache) {
  constexpr double kGib = 1 << 30, kMib = 1 << 20;
  const MemoryUse use = CurrentMemoryUse();
  return fmt::format(
      "peak memory {:.2f} GiB; now weights touched {:.2f} GiB, cache {:.2f} MiB, workspace {:.2f} "
      "MiB",
      static_cast<double>(use.peak) / kGib, static_cast<double>(use.file) / kGib,
      static_cast<double>(cache.allocated_bytes()) / kMib,
      static_cast<double>(use.anonymous - cache.allocated_bytes()) / kMib);
}

}  // namespace toaster
