#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chat/prompt_texts.h"
#include "server/conversation_memory.h"
#include "server/generation_request.h"
#include "server/generator.h"
#include "server/metrics.h"
#include "server/price_table.h"
#include "server/reply_assembler.h"
#include "tokenizer/tokenizer.h"

namespace toaster {

/// Everything that belongs to the model a server serves. The generator is borrowed.
struct ServedParts {
  ServedModel model;
  Tokenizer tokenizer;
  PromptTexts texts;
  Generator& generator;
  PriceTable prices;
  bool tame_prompts = false;  ///< see TamePrompt
};

/// A prompt with what the reply has been begun with, for a forced call.
struct RenderedPrompt {
  Prompt prompt;
  std::vector<int32_t> tokens;
  int64_t stable_tokens = 0;
  std::string begun;
};

/// A request on its way: its jobs, what they sampled, and what it came to. Used by one thread;
/// destroying it cancels what is left. Knows no protocol and no sockets.
class GenerationRun {
 public:
  struct Told {
    size_t choice = 0;
    ReplyPiece piece;
  };

  int64_t prompt_tokens() const { return prompt_tokens_; }
  /// Waits at most `time` for more of the reply and appends it to `told`. False: all is told.
  /// Throws what the generator failed with.
  bool Step(std::chrono::milliseconds time, std::vector<Told>& told);
  /// What was said, so far or in all, with its ledger.
  Outcome Result() const;
  /// For the metrics; `finish` overrules the reason of the reply where it is not empty.
  RequestFigures Figures(std::string_view finish) const;

 private:
  friend class GenerationService;
  GenerationRun(const ServedParts& parts, ConversationMemory& memory, Metrics& metrics,
                GenerationRequest request);

  struct Choice {
    std::unique_ptr<GenerationStream> stream;
    ReplyAssembler assembler;
    size_t prompt = 0;
    std::string echo;
    bool first = false;  ///< the first of its prompt: its prefix counts
    bool begun = false, done = false;
    std::vector<int32_t> tokens;
    GenerationFigures figures;
  };
  void Accept(const GeneratedToken& token, Choice& choice, std::vector<ReplyPiece>& pieces);
  void End(Choice& choice);
  OrderedJson Ledger(const Usage& usage) const;
  Usage TotalUsage() const;

  using SteadyClock = std::chrono::steady_clock;
  const ServedParts& parts_;
  ConversationMemory& memory_;
  Metrics& metrics_;
  GenerationRequest request_;
  std::vector<RenderedPrompt> prompts_;
  std::vector<Choice> choices_;
  size_t current_ = 0;
  int64_t prompt_tokens_ = 0;
  uint64_t seed_ = 0;
  int64_t restored_reasoning_ = 0;
  SteadyClock::time_point arrived_ = SteadyClock::now(), last_token_;
  double first_token_seconds_ = -1;
};

/// Makes runs of requests. Any thread.
class GenerationService {
 public:
  /// The parts are borrowed.
  GenerationService(const ServedParts& parts, ConversationMemory& memory, Metrics& metrics)
      : parts_(parts), memory_(memory), metrics_(metrics) {}

  /// Renders the prompts and submits the jobs. Throws ApiError.
  std::unique_ptr<GenerationRun> Start(GenerationRequest request) const;
  /// The prompts of a request, one if it is a conversation.
  std::vector<RenderedPrompt> Render(GenerationRequest& request, int64_t& restored) const;

 private:
  const ServedParts& parts_;
  ConversationMemory& memory_;
  Metrics& metrics_;
};

}  // namespace toaster
