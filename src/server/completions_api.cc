#include "server/completions_api.h"

#include <fmt/format.h>

#include "server/api_error.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr size_t kMostStops = 16;
constexpr int64_t kMostChoices = 8;
constexpr int64_t kMostAlternatives = 20;
constexpr size_t kMostPrompts = 64;
constexpr int64_t kDefaultMaxTokens = 16;       ///< as OpenAI documents it
constexpr int64_t kDefaultFillInTokens = 4096;  ///< the most the DeepSeek service fills in

TextPrompt TokensPrompt(const JsonValue& list, const std::string& where, const ServedModel& model) {
  TextPrompt prompt;
  for (const JsonValue& item : list.items) {
    const std::optional<int64_t> token = AsInteger(item);
    if (!token || *token < 0 || *token >= model.vocab_size) {
      RefuseField(fmt::format("{}[{}]", where, prompt.tokens.size()),
                  fmt::format("has to be a token id below {}", model.vocab_size));
    }
    prompt.tokens.push_back(static_cast<int32_t>(*token));
  }
  return prompt;
}

/// A text, a list of texts, a list of token ids or a list of such lists.
std::vector<TextPrompt> ReadPrompts(const RequestFields& fields, const ServedModel& model) {
  const JsonValue& prompt = fields.Require("prompt");
  if (prompt.is_string()) return {{prompt.text, {}}};
  if (!prompt.is_array() || prompt.items.empty())
    fields.Fail("prompt", "has to be a text, a list of texts, or token ids");
  if (prompt.items[0].kind == JsonValue::Kind::kNumber)
    return {TokensPrompt(prompt, "prompt", model)};
  if (prompt.items.size() > kMostPrompts)
    fields.Fail("prompt", fmt::format("has more than {} entries", kMostPrompts));
  std::vector<TextPrompt> prompts;
  for (const JsonValue& item : prompt.items) {
    const std::string where = fmt::format("prompt[{}]", prompts.size());
    if (item.is_string()) {
      prompts.push_back({item.text, {}});
    } else if (item.is_array() && !item.items.empty()) {
      prompts.push_back(TokensPrompt(item, where, model));
    } else {
      RefuseField(where, "has to be a text or a list of token ids");
    }
  }
  return prompts;
}

class CompletionWriter : public ResponseWriter {
 public:
  CompletionWriter(const GenerationRequest& request, ResponseHead head)
      : head_(std::move(head)),
        logprobs_(request.logprobs),
        include_usage_(request.include_usage),
        offsets_(static_cast<size_t>(request.choices) *
                 std::max<size_t>(request.prompts.size(), 1)) {}

  OrderedJson Whole(const Outcome& outcome) override {
    OrderedJson choices = OrderedJson::array();
    for (const Reply& reply : outcome.replies) {
      const size_t index = choices.size();
      choices.push_back(
          Choice(index, reply.content, reply.content_logprobs, OpenAiFinishReason(reply.finish)));
    }
    OrderedJson response = Head();
    response["choices"] = std::move(choices);
    response["usage"] = OpenAiUsage(outcome.usage);
    AddLedger(response, outcome);
    return response;
  }

  std::string Begin(int64_t) override { return ""; }

  std::string Piece(size_t choice, const ReplyPiece& piece) override {
    if (piece.event.kind != ReplyEvent::Kind::kContent) return "";
    return Chunk(Choice(choice, piece.event.text, piece.logprobs, nullptr));
  }

  std::string End(const Outcome& outcome) override {
    std::string text;
    for (size_t i = 0; i < outcome.replies.size(); ++i) {
      OrderedJson chunk = Head();
      chunk["choices"] =
          OrderedJson::array({Choice(i, "", {}, OpenAiFinishReason(outcome.replies[i].finish))});
      if (i + 1 == outcome.replies.size() && !include_usage_) AddLedger(chunk, outcome);
      text += ServerSentEvent(chunk);
    }
    if (include_usage_) {
      OrderedJson chunk = Head();
      chunk["choices"] = OrderedJson::array();
      chunk["usage"] = OpenAiUsage(outcome.usage);
      AddLedger(chunk, outcome);
      text += ServerSentEvent(chunk);
    }
    return text + "data: [DONE]\n\n";
  }

  std::string Failure(const ApiError& error) override {
    return ServerSentEvent(ErrorBody(Protocol::kOpenAi, error)) + "data: [DONE]\n\n";
  }

 private:
  OrderedJson Head() const {
    return {{"id", head_.id},
            {"object", "text_completion"},
            {"created", head_.created},
            {"model", head_.model},
            {"system_fingerprint", "toaster"}};
  }

  std::string Chunk(OrderedJson choice) const {
    OrderedJson chunk = Head();
    chunk["choices"] = OrderedJson::array({std::move(choice)});
    return ServerSentEvent(chunk);
  }

  OrderedJson Choice(size_t index, const std::string& text, const std::vector<TokenLogprob>& tokens,
                     OrderedJson finish) {
    OrderedJson logprobs;
    if (logprobs_ >= 0 && !tokens.empty()) logprobs = Logprobs(index, tokens);
    return {{"text", text},
            {"index", index},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", std::move(finish)}};
  }

  /// The older form of log probabilities: lists side by side.
  OrderedJson Logprobs(size_t index, const std::vector<TokenLogprob>& tokens) {
    OrderedJson texts = OrderedJson::array(), values = OrderedJson::array();
    OrderedJson tops = OrderedJson::array(), offsets = OrderedJson::array();
    for (const TokenLogprob& token : tokens) {
      const std::string text = ReplaceIllFormed(token.bytes);
      OrderedJson top = OrderedJson::object();
      for (const TokenLogprob& other : token.alternatives) {
        if (static_cast<int64_t>(top.size()) < logprobs_)
          top[ReplaceIllFormed(other.bytes)] = other.logprob;
      }
      texts.push_back(text);
      values.push_back(token.logprob);
      tops.push_back(std::move(top));
      offsets.push_back(offsets_[index]);
      for (const char c : text) offsets_[index] += (c & 0xC0) != 0x80;
    }
    return {{"tokens", std::move(texts)},
            {"token_logprobs", std::move(values)},
            {"top_logprobs", std::move(tops)},
            {"text_offset", std::move(offsets)}};
  }

  static void AddLedger(OrderedJson& object, const Outcome& outcome) {
    if (!outcome.ledger.is_null()) object["toaster"] = outcome.ledger;
  }

  ResponseHead head_;
  int64_t logprobs_;
  bool include_usage_;
  std::vector<int64_t> offsets_;  ///< characters before the next token, per choice
};

}  // namespace

GenerationRequest ParseCompletionRequest(const JsonValue& body, const ServedModel& model) {
  const RequestFields fields(body);
  CheckModelName(fields, model);
  GenerationRequest request;
  request.prompts = ReadPrompts(fields, model);
  request.suffix = fields.String("suffix");
  if (request.suffix) {
    for (const TextPrompt& prompt : request.prompts) {
      if (!prompt.tokens.empty())
        fields.Fail("suffix", "goes with prompts that are text, not token ids");
    }
  }
  request.echo = fields.Boolean("echo").value_or(false);
  ReadSampling(fields, request);
  request.max_tokens = fields.Integer("max_tokens", 1, INT32_MAX)
                           .value_or(request.suffix ? kDefaultFillInTokens : kDefaultMaxTokens);
  request.stop = fields.Strings("stop", kMostStops);
  request.ignore_eos = fields.Boolean("ignore_eos").value_or(false);
  request.choices = fields.Integer("n", 1, kMostChoices).value_or(1);
  if (fields.Integer("best_of", 1, kMostChoices).value_or(request.choices) != request.choices)
    fields.Fail("best_of", "is not supported; ask for n replies and choose");
  request.logprobs = fields.Integer("logprobs", 0, kMostAlternatives).value_or(-1);
  if (request.echo && request.logprobs >= 0)
    fields.Fail("echo", "prompts have no log probabilities here; leave out echo or logprobs");
  for (const char* key : {"grammar", "guided_json", "guided_regex", "guided_choice",
                          "guided_grammar", "structured_outputs", "json_schema", "logit_bias"}) {
    fields.Refuse(key, "is not supported for plain completions; leave it out", "{}");
  }
  request.stream = fields.Boolean("stream").value_or(false);
  if (const JsonValue* options = fields.Find("stream_options")) {
    request.include_usage =
        RequestFields(*options, "stream_options").Boolean("include_usage").value_or(false);
  }
  request.user_id = ReadUserId(fields, "user_id");
  return request;
}

std::unique_ptr<ResponseWriter> MakeCompletionWriter(const GenerationRequest& request,
                                                     ResponseHead head) {
  return std::make_unique<CompletionWriter>(request, std::move(head));
}

}  // namespace toaster
