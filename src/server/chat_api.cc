#include "server/chat_api.h"

#include <fmt/format.h>

#include <algorithm>

#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr size_t kMostStops = 16;
constexpr int64_t kMostChoices = 8;
constexpr int64_t kMostAlternatives = 20;

/// What this server does not have and what would change the answer.
void RefuseUnsupported(const RequestFields& fields) {
  fields.Refuse("functions", "is the old form of tools; send tools");
  fields.Refuse("function_call", "is the old form of tool_choice; send tools and tool_choice");
  fields.Refuse("audio", "this model makes no sound; leave it out");
  fields.Refuse("modalities", "this model makes text only; leave it out", "[\"text\"]");
  fields.Refuse("web_search_options", "this server does not search; offer a search tool");
  fields.Refuse("verbosity", "this model has no levels of verbosity; ask for them in words",
                "\"medium\"");
  fields.Refuse("min_tokens", "is not supported; leave it out", "0");
  for (const char* key : {"grammar", "guided_json", "guided_regex", "guided_choice",
                          "guided_grammar", "structured_outputs", "json_schema"}) {
    fields.Refuse(key, "replies are not held to a grammar while sampling; leave it out");
  }
}

/// Tokens by their id, as a string, with what to add to their logits.
void ReadLogitBias(const RequestFields& fields, GenerationRequest& request,
                   const ServedModel& model) {
  const JsonValue* bias = fields.Find("logit_bias");
  if (!bias) return;
  const RequestFields inner(*bias, "logit_bias");
  for (const std::string& key : bias->keys) {
    const std::optional<int64_t> token =
        AsInteger({JsonValue::Kind::kNumber, key.substr(0, 20), {}, {}});
    if (!token || *token < 0 || *token >= model.vocab_size)
      inner.Fail(key.substr(0, 20), "is no token id of this model");
    if (const auto value = inner.Number(key, -100, 100))
      request.sampling.logit_bias[static_cast<int32_t>(*token)] = static_cast<float>(*value);
  }
}

void ReadToolChoice(const RequestFields& fields, GenerationRequest& request) {
  const JsonValue* choice = fields.Find("tool_choice");
  if (!choice) return;
  if (!choice->is_string()) {
    const RequestFields inner(*choice, "tool_choice");
    if (inner.RequireString("type") != "function")
      inner.Fail("type", "only choices of type function are known");
    const RequestFields function(inner.Require("function"), "tool_choice.function");
    request.tool_choice = ToolChoice::kNamed;
    request.tool_name = function.RequireString("name");
  } else if (choice->text == "required") {
    request.tool_choice = ToolChoice::kRequired;
  } else if (choice->text == "none") {
    request.tool_choice = ToolChoice::kNone;
  } else if (choice->text != "auto") {
    fields.Fail("tool_choice", "is none of none, auto, required, or a function by name");
  }
}

bool MentionsJson(const Conversation& conversation) {
  return std::any_of(
      conversation.messages.begin(), conversation.messages.end(), [](const Message& message) {
        std::string text = message.content;
        std::transform(text.begin(), text.end(), text.begin(),
                       [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
        return text.find("json") != std::string::npos;
      });
}

void CheckResponseFormat(const RequestFields& fields, const Conversation& conversation) {
  const JsonValue* format = fields.Find("response_format");
  if (!format) return;
  const RequestFields inner(*format, "response_format");
  const std::string type = inner.RequireString("type");
  if (type == "json_object" && !MentionsJson(conversation)) {
    fields.Fail("response_format",
                "json_object needs a message that mentions JSON and says which form it wants");
  }
  const JsonValue* wrapper = inner.Find("json_schema");
  if (type != "json_schema" || !wrapper) return;
  const RequestFields schema(*wrapper, "response_format.json_schema");
  if (schema.Boolean("strict").value_or(false)) {
    schema.Fail("strict",
                "the model is shown the schema, but not held to it while sampling; send false and "
                "check the answer");
  }
}

/// The parts of a request that ParseConversation() reads, and nothing else.
Conversation ReadConversation(const JsonValue& body) {
  JsonValue relevant = JsonValue::Object();
  for (const char* key : {"messages", "tools", "response_format"}) {
    if (const JsonValue* value = body.Find(key)) relevant.Set(key, *value);
  }
  // Tools beside them would make a message of their own.
  if (const std::vector<JsonValue>* messages = RequestFields(body).List("messages");
      messages && messages->empty())
    RefuseField("messages", "is empty");
  Conversation conversation;
  try {
    conversation = ParseConversation(relevant);
  } catch (const Error& error) {
    throw ApiError::From(error);
  }
  // What this API calls developer is the later name of system; the prompt format's own role of that
  // name is another thing.
  for (Message& message : conversation.messages) {
    if (message.role == Role::kDeveloper) message.role = Role::kSystem;
  }
  return conversation;
}

void ReadTemplateOptions(const RequestFields& fields, std::optional<bool>& thinking) {
  const JsonValue* options = fields.Find("chat_template_kwargs");
  if (!options) return;
  const RequestFields inner(*options, "chat_template_kwargs");
  for (const std::string& key : options->keys) {
    if (key != "thinking" && key != "enable_thinking")
      inner.Fail(key, "only thinking and enable_thinking are known");
    if (const auto on = inner.Boolean(key)) thinking = on;
  }
}

}  // namespace

GenerationRequest ParseChatRequest(const JsonValue& body, const ServedModel& model) {
  const RequestFields fields(body);
  CheckModelName(fields, model);
  RefuseUnsupported(fields);
  GenerationRequest request;
  request.conversation = ReadConversation(body);
  CheckResponseFormat(fields, *request.conversation);
  ReadToolChoice(fields, request);
  request.parallel_calls = fields.Boolean("parallel_tool_calls").value_or(true);

  std::optional<bool> thinking = ReadThinking(fields);
  ReadTemplateOptions(fields, thinking);
  const std::optional<std::string> effort = fields.String("reasoning_effort");
  if (effort && *effort != "none") {
    request.conversation->effort = ResolveEffort(*effort, model, "reasoning_effort");
    if (!thinking && request.tool_choice != ToolChoice::kRequired &&
        request.tool_choice != ToolChoice::kNamed)
      thinking = true;
  }
  request.conversation->thinking = thinking.value_or(!(effort && *effort == "none"));
  FinishConversation(request, thinking.value_or(false), ".function");

  ReadSampling(fields, request);
  ReadLogitBias(fields, request, model);
  request.max_tokens = fields.Integer("max_completion_tokens", 1, INT32_MAX);
  const auto older_name = fields.Integer("max_tokens", 1, INT32_MAX);
  if (!request.max_tokens) request.max_tokens = older_name;
  request.stop = fields.Strings("stop", kMostStops);
  request.ignore_eos = fields.Boolean("ignore_eos").value_or(false);
  request.choices = fields.Integer("n", 1, kMostChoices).value_or(1);
  const bool logprobs = fields.Boolean("logprobs").value_or(false);
  const auto alternatives = fields.Integer("top_logprobs", 0, kMostAlternatives);
  if (alternatives && *alternatives > 0 && !logprobs)
    fields.Fail("top_logprobs", "needs logprobs to be true");
  if (logprobs) request.logprobs = alternatives.value_or(0);
  request.stream = fields.Boolean("stream").value_or(false);
  if (const JsonValue* options = fields.Find("stream_options")) {
    request.include_usage =
        RequestFields(*options, "stream_options").Boolean("include_usage").value_or(false);
  }
  request.user_id = ReadUserId(fields, "user_id");
  return request;
}

OrderedJson ChatLogprobs(const std::vector<TokenLogprob>& tokens, int64_t alternatives) {
  const auto entry = [](const TokenLogprob& token) {
    OrderedJson bytes = OrderedJson::array();
    for (const char byte : token.bytes) bytes.push_back(static_cast<uint8_t>(byte));
    return OrderedJson{{"token", ReplaceIllFormed(token.bytes)},
                       {"logprob", token.logprob},
                       {"bytes", std::move(bytes)}};
  };
  OrderedJson list = OrderedJson::array();
  for (const TokenLogprob& token : tokens) {
    OrderedJson item = entry(token);
    OrderedJson others = OrderedJson::array();
    for (const TokenLogprob& other : token.alternatives) {
      if (static_cast<int64_t>(others.size()) < alternatives) others.push_back(entry(other));
    }
    item["top_logprobs"] = std::move(others);
    list.push_back(std::move(item));
  }
  return list;
}

namespace {

class ChatWriter : public ResponseWriter {
 public:
  ChatWriter(const GenerationRequest& request, ResponseHead head)
      : head_(std::move(head)),
        choices_(static_cast<size_t>(request.choices)),
        logprobs_(request.logprobs),
        include_usage_(request.include_usage) {}

  OrderedJson Whole(const Outcome& outcome) override {
    OrderedJson response = Head("chat.completion");
    OrderedJson choices = OrderedJson::array();
    for (const Reply& reply : outcome.replies) choices.push_back(Choice(reply, choices.size()));
    response["choices"] = std::move(choices);
    response["usage"] = OpenAiUsage(outcome.usage);
    if (!outcome.ledger.is_null()) response["toaster"] = outcome.ledger;
    return response;
  }

  std::string Begin(int64_t) override {
    std::string text;
    for (size_t i = 0; i < choices_; ++i)
      text += Chunk(i, {{"role", "assistant"}, {"content", ""}}, {});
    return text;
  }

  std::string Piece(size_t choice, const ReplyPiece& piece) override {
    const ReplyEvent& event = piece.event;
    switch (event.kind) {
      case ReplyEvent::Kind::kReasoning:
        return Chunk(choice, {{"reasoning_content", event.text}},
                     Logprobs(piece.logprobs, "reasoning_content"));
      case ReplyEvent::Kind::kContent:
        return Chunk(choice, {{"content", event.text}}, Logprobs(piece.logprobs, "content"));
      case ReplyEvent::Kind::kCallBegin:
        return Chunk(choice,
                     {{"tool_calls",
                       {{{"index", event.call},
                         {"id", piece.call_id},
                         {"type", "function"},
                         {"function", {{"name", event.text}, {"arguments", ""}}}}}}},
                     {});
      case ReplyEvent::Kind::kArguments:
        return Chunk(
            choice,
            {{"tool_calls", {{{"index", event.call}, {"function", {{"arguments", event.text}}}}}}},
            {});
      case ReplyEvent::Kind::kCallEnd:
      case ReplyEvent::Kind::kWarning:
        break;
    }
    return "";
  }

  std::string End(const Outcome& outcome) override {
    std::string text;
    for (size_t i = 0; i < outcome.replies.size(); ++i) {
      OrderedJson chunk = Head("chat.completion.chunk");
      chunk["choices"] = {{{"index", i},
                           {"delta", OrderedJson::object()},
                           {"logprobs", nullptr},
                           {"finish_reason", OpenAiFinishReason(outcome.replies[i].finish)}}};
      const bool last = i + 1 == outcome.replies.size();
      if (include_usage_) chunk["usage"] = nullptr;
      if (last && !include_usage_) AddLedger(chunk, outcome);
      text += ServerSentEvent(chunk);
    }
    if (include_usage_) {
      OrderedJson chunk = Head("chat.completion.chunk");
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
  OrderedJson Head(std::string_view object) const {
    return {{"id", head_.id},
            {"object", object},
            {"created", head_.created},
            {"model", head_.model},
            {"system_fingerprint", "toaster"}};
  }

  std::string Chunk(size_t choice, OrderedJson delta, OrderedJson logprobs) const {
    OrderedJson chunk = Head("chat.completion.chunk");
    chunk["choices"] = {{{"index", choice},
                         {"delta", std::move(delta)},
                         {"logprobs", std::move(logprobs)},
                         {"finish_reason", nullptr}}};
    if (include_usage_) chunk["usage"] = nullptr;
    return ServerSentEvent(chunk);
  }

  OrderedJson Logprobs(const std::vector<TokenLogprob>& tokens, const char* list) const {
    if (logprobs_ < 0 || tokens.empty()) return {};
    return {{list, ChatLogprobs(tokens, logprobs_)}};
  }

  OrderedJson Choice(const Reply& reply, size_t index) const {
    OrderedJson message = {{"role", "assistant"}, {"content", reply.content}};
    if (!reply.reasoning.empty()) message["reasoning_content"] = reply.reasoning;
    if (!reply.calls.empty()) {
      if (reply.content.empty()) message["content"] = nullptr;
      OrderedJson calls = OrderedJson::array();
      for (size_t i = 0; i < reply.calls.size(); ++i) {
        const ParsedCall& call = reply.calls[i];
        calls.push_back({{"index", i},
                         {"id", reply.call_ids[i]},
                         {"type", "function"},
                         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
      }
      message["tool_calls"] = std::move(calls);
    }
    OrderedJson logprobs;
    if (logprobs_ >= 0) {
      logprobs = {{"content", ChatLogprobs(reply.content_logprobs, logprobs_)}};
      if (!reply.reasoning_logprobs.empty())
        logprobs["reasoning_content"] = ChatLogprobs(reply.reasoning_logprobs, logprobs_);
    }
    return {{"index", index},
            {"message", std::move(message)},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", OpenAiFinishReason(reply.finish)}};
  }

  static void AddLedger(OrderedJson& chunk, const Outcome& outcome) {
    if (!outcome.ledger.is_null()) chunk["toaster"] = outcome.ledger;
  }

  ResponseHead head_;
  size_t choices_;
  int64_t logprobs_;
  bool include_usage_;
};

}  // namespace

std::unique_ptr<ResponseWriter> MakeChatWriter(const GenerationRequest& request,
                                               ResponseHead head) {
  return std::make_unique<ChatWriter>(request, std::move(head));
}

}  // namespace toaster
