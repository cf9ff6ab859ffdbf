#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/conversation.h"
#include "engine/sampler.h"
#include "server/request_fields.h"

namespace toaster {

/// What translating a request needs to know about the model that is served.
struct ServedModel {
  std::string name;
  /// Other names that mean this model; "*" means any.
  std::vector<std::string> aliases;
  /// The reasoning efforts that its prompt texts know; empty if it has no texts.
  std::vector<Effort> efforts;
  int64_t context = 0;  ///< longest sequence in tokens; 0: not limited
  int64_t vocab_size = 0;
};

/// Whether the model may, must or must not call tools.
enum class ToolChoice { kAuto, kNone, kRequired, kNamed };

/// A prompt of /v1/completions: text, or token ids.
struct TextPrompt {
  std::string text;
  std::vector<int32_t> tokens;  ///< used if not empty
};

/// A request in the terms of no protocol: what to answer, how to sample, how to deliver. Every
/// protocol's parser makes one; nothing behind it knows which.
struct GenerationRequest {
  // What to answer: a conversation or, if `conversation` is not set, texts to go on with.
  std::optional<Conversation> conversation;
  std::vector<TextPrompt> prompts;
  std::optional<std::string> suffix;  ///< fill in between prompt and suffix
  bool echo = false;                  ///< repeat the prompt in front of the reply

  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_name;  ///< of kNamed
  bool parallel_calls = true;
  /// Tools whose one argument is a plain text (the Responses API's type "custom").
  std::vector<std::string> text_tools;

  SamplingOptions sampling;
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_tokens;  ///< of reasoning and answer together
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int64_t choices = 1;
  int64_t logprobs = -1;  ///< how many alternatives to tell; -1: no log probabilities

  bool stream = false;
  bool include_usage = false;
  std::string user_id;  ///< caches of different users are kept apart
  /// What was asked for and left out because it can't change the answer; told in the ledger.
  std::vector<std::string> notes;

  /// The reply begins with reasoning.
  bool ReplyReasons() const {
    return conversation && conversation->thinking && !ContinuesAnswer() &&
           tool_choice != ToolChoice::kRequired && tool_choice != ToolChoice::kNamed;
  }
  /// The last message is an answer that the model is to continue.
  bool ContinuesAnswer() const {
    return conversation && !conversation->messages.empty() &&
           conversation->messages.back().without_eos;
  }
};

/// Checks the name of the model a request asks for; an absent one means the one there is. Names of
/// the DeepSeek service are taken for it. Throws ApiError of status 404 for others.
void CheckModelName(const RequestFields& fields, const ServedModel& model);

/// temperature, top_p, top_k, min_p, the penalties and seed, which the protocols share.
void ReadSampling(const RequestFields& fields, GenerationRequest& request);

/// The effort that a name means for this model: minimal and low are low, medium and high are high,
/// max and ultra are max; xhigh is the strongest or second strongest, as the model's revision has
/// it. A model without texts thinks in one way, and any name but the strongest ones means that.
/// Throws ApiError naming `param`.
Effort ResolveEffort(std::string_view name, const ServedModel& model, std::string_view param);

/// thinking: {"type": "enabled" | "disabled" | "adaptive"} or a boolean; absent: nothing.
std::optional<bool> ReadThinking(const RequestFields& fields);

/// user_id as the DeepSeek service takes it.
std::string ReadUserId(const RequestFields& fields, std::string_view key);

/// A tool choice that forces a call begins the call at once, so it goes without reasoning: turns
/// thinking off, or throws where the client asked for it. Drops the tools for kNone. Also refuses a
/// conversation that gives the model nothing to answer.
/// A tool's fields are named as tools[i] + function_key + "." + field.
void FinishConversation(GenerationRequest& request, bool thinking_asked,
                        std::string_view function_key = "");

/// Puts the function objects of tools, or a response format, on the first message if that is a
/// system message, otherwise on an empty one put in front.
Message& SystemMessage(Conversation& conversation);

}  // namespace toaster
