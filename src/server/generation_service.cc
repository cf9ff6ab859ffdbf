#include "server/generation_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "chat/render_prompt.h"
#include "server/api_error.h"
#include "server/prompt_tamer.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

double Seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

uint64_t RandomSeed() {
  std::random_device device;
  // JSON numbers are exact up to 2^53, and the ledger tells the seed.
  return (uint64_t{device()} << 20 ^ device()) & ((uint64_t{1} << 52) - 1);
}

/// Begins the tool call that a request forces: in the prompt, and as what the reply begins with.
std::string BeginForcedCall(const GenerationRequest& request, Prompt& prompt) {
  std::string rest = "invoke name=\"";
  if (request.tool_choice == ToolChoice::kNamed) {
    const std::vector<Message>& messages = request.conversation->messages;
    const bool known = std::any_of(messages.begin(), messages.end(), [&](const Message& message) {
      return std::any_of(message.tools.begin(), message.tools.end(), [&](const JsonValue& tool) {
        const JsonValue* name = tool.Find("name");
        return name && name->is_string() && name->text == request.tool_name;
      });
    });
    if (!known) RefuseField("tool_choice", "names a function that is none of the tools");
    rest += request.tool_name + "\">\n";
  } else if (request.tool_choice != ToolChoice::kRequired) {
    return "";
  }
  prompt.MarkStableEnd();
  prompt.AddText("\n\n<");
  prompt.AddControl(kDsmlToken);
  prompt.AddText("tool_calls>\n<");
  prompt.AddControl(kDsmlToken);
  prompt.AddText(rest);
  return fmt::format("\n\n<{0}tool_calls>\n<{0}{1}", kDsmlToken, rest);
}

/// A text completion's prompt: with the token that begins every text in front, as for `run`.
Prompt RenderText(const TextPrompt& text) {
  Prompt prompt;
  prompt.AddControl(kBosToken);
  prompt.AddText(text.text);
  return prompt;
}

}  // namespace

std::vector<RenderedPrompt> GenerationService::Render(GenerationRequest& request,
                                                      int64_t& restored) const {
  std::vector<RenderedPrompt> prompts;
  try {
    if (request.conversation) {
      if (parts_.tame_prompts) {
        for (std::string& note : TamePrompt(*request.conversation))
          request.notes.push_back(std::move(note));
      }
      restored = memory_.Restore(request.conversation->messages);
      RenderedPrompt& rendered = prompts.emplace_back();
      rendered.prompt = RenderPrompt(*request.conversation, parts_.texts);
      rendered.begun = BeginForcedCall(request, rendered.prompt);
      PromptTokens encoded = memory_.Encode(rendered.prompt, parts_.tokenizer);
      rendered.tokens = std::move(encoded.tokens);
      rendered.stable_tokens = static_cast<int64_t>(encoded.stable);
      return prompts;
    }
    for (const TextPrompt& text : request.prompts) {
      RenderedPrompt& rendered = prompts.emplace_back();
      if (!text.tokens.empty()) {
        rendered.tokens = text.tokens;
      } else {
        rendered.prompt =
            request.suffix ? RenderFillInTheMiddle(text.text, *request.suffix) : RenderText(text);
        rendered.tokens = EncodePrompt(rendered.prompt, parts_.tokenizer).tokens;
      }
      rendered.stable_tokens = static_cast<int64_t>(rendered.tokens.size());
    }
  } catch (const Error& error) {
    throw ApiError::From(error);
  }
  return prompts;
}

std::unique_ptr<GenerationRun> GenerationService::Start(GenerationRequest request) const {
  std::unique_ptr<GenerationRun> run(
      new GenerationRun(parts_, memory_, metrics_, std::move(request)));
  GenerationRequest& asked = run->request_;
  run->prompts_ = Render(asked, run->restored_reasoning_);
  run->seed_ = asked.seed.value_or(RandomSeed());
  for (size_t p = 0; p < run->prompts_.size(); ++p) {
    const RenderedPrompt& prompt = run->prompts_[p];
    const auto length = static_cast<int64_t>(prompt.tokens.size());
    run->prompt_tokens_ += length;
    const int64_t context = parts_.model.context;
    if (context > 0 && length >= context) {
      ApiError error(400, asked.conversation ? "messages" : "prompt",
                     fmt::format("the prompt has {} tokens, and the model's context is {}; shorten "
                                 "the conversation",
                                 length, context));
      error.code = "context_length_exceeded";
      throw error;
    }
    const int64_t room = context > 0 ? context - length : INT32_MAX;
    for (int64_t n = 0; n < asked.choices; ++n) {
      GenerationJob job;
      job.prompt = prompt.tokens;
      job.stable_tokens = prompt.stable_tokens;
      job.sampling = asked.sampling;
      job.sampling.seed = run->seed_ + static_cast<uint64_t>(n);
      job.max_tokens = std::min(asked.max_tokens.value_or(room), room);
      job.ignore_eos = asked.ignore_eos;
      job.logprobs = asked.logprobs;
      job.user_id = asked.user_id;
      std::string echo;
      if (asked.echo)
        echo = prompt.prompt.segments().empty() ? parts_.tokenizer.Decode(prompt.tokens)
                                                : asked.prompts[p].text;
      try {
        run->choices_.push_back({parts_.generator.Submit(std::move(job)),
                                 ReplyAssembler(asked, parts_.tokenizer, prompt.begun),
                                 p,
                                 std::move(echo),
                                 n == 0,
                                 false,
                                 false,
                                 {},
                                 {}});
      } catch (const Error& error) {
        throw ApiError::From(error);
      }
    }
  }
  return run;
}

GenerationRun::GenerationRun(const ServedParts& parts, ConversationMemory& memory, Metrics& metrics,
                             GenerationRequest request)
    : parts_(parts), memory_(memory), metrics_(metrics), request_(std::move(request)) {}

bool GenerationRun::Step(std::chrono::milliseconds time, std::vector<Told>& told) {
  if (current_ >= choices_.size()) return false;
  Choice& choice = choices_[current_];
  std::vector<ReplyPiece> pieces;
  if (!std::exchange(choice.begun, true)) {
    if (!choice.echo.empty()) {
      ReplyEvent& event = pieces.emplace_back().event;
      event.kind = ReplyEvent::Kind::kContent;
      event.text = choice.echo;
    }
    choice.assembler.Begin(pieces);
  } else {
    GeneratedToken token;
    switch (choice.stream->Wait(time, token)) {
      case GenerationStream::Next::kToken:
        Accept(token, choice, pieces);
        break;
      case GenerationStream::Next::kEnd:
        choice.assembler.Finish(
            choice.stream->end() == GenerationEnd::kEndToken ? ReplyEnd::kStop : ReplyEnd::kLength,
            choice.stream->end() == GenerationEnd::kEndToken, pieces);
        End(choice);
        break;
      case GenerationStream::Next::kNothing:
        break;
    }
  }
  for (ReplyPiece& piece : pieces) told.push_back({current_, std::move(piece)});
  if (choice.done) ++current_;
  return current_ < choices_.size();
}

void GenerationRun::Accept(const GeneratedToken& token, Choice& choice,
                           std::vector<ReplyPiece>& pieces) {
  const auto now = SteadyClock::now();
  if (first_token_seconds_ < 0) {
    first_token_seconds_ = Seconds(now - arrived_);
  } else {
    metrics_.AddTokenGap(Seconds(now - last_token_));
  }
  last_token_ = now;
  choice.tokens.push_back(token.token);
  const auto bytes = [&](int32_t id) { return std::string(parts_.tokenizer.TokenBytes(id)); };
  TokenLogprob logprob = {bytes(token.token), token.logprob, {}};
  for (const GeneratedLogprob& other : token.alternatives)
    logprob.alternatives.push_back({bytes(other.token), other.logprob, {}});
  if (choice.assembler.Push(token.token, request_.logprobs >= 0 ? &logprob : nullptr, pieces))
    return;
  choice.assembler.Finish(ReplyEnd::kStop, false, pieces);
  End(choice);
}

void GenerationRun::End(Choice& choice) {
  choice.done = true;
  choice.figures = choice.stream->figures();
  choice.stream.reset();
  if (!request_.conversation) return;
  const RenderedPrompt& prompt = prompts_[choice.prompt];
  memory_.Keep(prompt.prompt, prompt.tokens, choice.tokens, choice.assembler.reply(),
               parts_.tokenizer);
}

Usage GenerationRun::TotalUsage() const {
  Usage usage;
  usage.prompt_tokens = prompt_tokens_;
  for (const Choice& choice : choices_) {
    if (choice.first) {
      usage.cached_tokens +=
          choice.stream ? choice.stream->figures().cached_tokens : choice.figures.cached_tokens;
    }
    usage.completion_tokens += choice.assembler.reply().tokens;
    usage.reasoning_tokens += choice.assembler.reply().reasoning_tokens;
  }
  return usage;
}

Outcome GenerationRun::Result() const {
  Outcome outcome;
  for (const Choice& choice : choices_) {
    Reply& reply = outcome.replies.emplace_back(choice.assembler.reply());
    reply.content.insert(0, choice.echo);
  }
  outcome.usage = TotalUsage();
  outcome.ledger = Ledger(outcome.usage);
  return outcome;
}

RequestFigures GenerationRun::Figures(std::string_view finish) const {
  RequestFigures figures;
  const Usage usage = TotalUsage();
  figures.hit_tokens = usage.cached_tokens;
  figures.miss_tokens = usage.prompt_tokens - usage.cached_tokens;
  figures.generated_tokens = usage.completion_tokens;
  for (const Choice& choice : choices_) {
    const GenerationFigures own = choice.stream ? choice.stream->figures() : choice.figures;
    figures.queue_seconds = std::max(figures.queue_seconds, own.queue_seconds);
    figures.prefill_seconds += own.prefill_seconds;
    figures.decode_seconds += own.decode_seconds;
  }
  figures.first_token_seconds = first_token_seconds_;
  figures.total_seconds = Seconds(SteadyClock::now() - arrived_);
  figures.dollars =
      Cost(parts_.prices.For(parts_.model.name), static_cast<double>(figures.hit_tokens),
           static_cast<double>(figures.miss_tokens), static_cast<double>(figures.generated_tokens));
  figures.finish_reason = !finish.empty() ? std::string(finish)
                          : choices_.empty()
                              ? "error"
                              : OpenAiFinishReason(choices_[0].assembler.reply().finish);
  return figures;
}

OrderedJson GenerationRun::Ledger(const Usage& usage) const {
  const RequestFigures figures = Figures("");
  std::string reason, cached_in;
  std::map<std::string, int64_t> read_bytes;
  OrderedJson notes = request_.notes;
  for (const Choice& choice : choices_) {
    const GenerationFigures own = choice.stream ? choice.stream->figures() : choice.figures;
    if (choice.first && reason.empty()) reason = own.miss_reason;
    if (choice.first && cached_in.empty()) cached_in = own.cached_in;
    for (const auto& [tier, bytes] : own.read_bytes) read_bytes[tier] += bytes;
    for (const std::string& note : choice.assembler.reply().notes) notes.push_back(note);
  }
  if (restored_reasoning_ > 0)
    notes.push_back(fmt::format("reasoning of {} earlier calls was put back", restored_reasoning_));
  if (notes.is_null()) notes = OrderedJson::array();
  return {{"cache_hit_tokens", usage.cached_tokens},
          {"cache_miss_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_tier", cached_in.empty() ? OrderedJson() : OrderedJson(cached_in)},
          {"miss_reason", reason.empty() ? OrderedJson() : OrderedJson(reason)},
          {"queue_seconds", figures.queue_seconds},
          {"prefill_seconds", figures.prefill_seconds},
          {"decode_seconds", figures.decode_seconds},
          {"read_bytes", read_bytes},
          {"price_dollars", figures.dollars},
          {"seed", seed_},
          {"notes", std::move(notes)}};
}

}  // namespace toaster
