#include "server/messages_api.h"

#include <fmt/format.h>

#include "server/api_error.h"

namespace toaster {
namespace {

constexpr size_t kMostStops = 64;

/// The texts of a list of blocks that may hold nothing else.
std::string JoinTexts(const std::vector<JsonValue>& blocks, const std::string& where,
                      std::string_view between) {
  std::string text;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const RequestFields block(blocks[i], fmt::format("{}[{}]", where, i));
    if (const std::string type = block.RequireString("type"); type != "text")
      block.Fail("type", fmt::format("blocks of type {} are not supported here; send text",
                                     DumpPythonString(type.substr(0, 60))));
    if (i > 0) text += between;
    text += block.RequireString("text");
  }
  return text;
}

std::string TextOrBlocks(const RequestFields& fields, std::string_view key) {
  const JsonValue* value = fields.Find(key);
  if (!value) return "";
  if (value->is_string()) return value->text;
  if (!value->is_array()) fields.Fail(key, "has to be a text or a list of blocks");
  return JoinTexts(value->items, fields.Path(key), "\n\n");
}

/// A message of blocks becomes one message of ours per tool result and one for the texts between.
void AddUserBlocks(const std::vector<JsonValue>& blocks, const std::string& where,
                   std::vector<Message>& messages) {
  bool text_open = false;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const RequestFields block(blocks[i], fmt::format("{}[{}]", where, i));
    const std::string type = block.RequireString("type");
    if (type == "text") {
      const std::string text = block.RequireString("text");
      if (text_open) {
        messages.back().content += "\n\n" + text;
      } else {
        messages.emplace_back().content = text;
      }
      text_open = true;
    } else if (type == "tool_result") {
      Message& result = messages.emplace_back();
      result.role = Role::kTool;
      result.tool_call_id = block.RequireString("tool_use_id");
      result.content = TextOrBlocks(block, "content");
      text_open = false;
    } else {
      block.Fail("type", fmt::format("blocks of type {} are not supported; send text",
                                     DumpPythonString(type.substr(0, 60))));
    }
  }
}

void AddAssistantBlocks(const std::vector<JsonValue>& blocks, const std::string& where,
                        Message& message) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    const RequestFields block(blocks[i], fmt::format("{}[{}]", where, i));
    const std::string type = block.RequireString("type");
    if (type == "text") {
      message.content += block.RequireString("text");
    } else if (type == "thinking") {
      message.reasoning += block.RequireString("thinking");
    } else if (type == "tool_use") {
      ToolCall& call = message.tool_calls.emplace_back();
      call.id = block.RequireString("id");
      call.name = block.RequireString("name");
      const JsonValue& input = block.Require("input");
      if (!input.is_object()) block.Fail("input", "has to be an object");
      call.arguments = DumpPythonJson(input);
    } else {
      block.Fail("type", fmt::format("blocks of type {} are not supported",
                                     DumpPythonString(type.substr(0, 60))));
    }
  }
}

void AddMessage(const RequestFields& message, std::vector<Message>& messages) {
  const std::string role = message.RequireString("role");
  const JsonValue& content = message.Require("content");
  if (!content.is_string() && !content.is_array())
    message.Fail("content", "has to be a text or a list of blocks");
  if (role == "user") {
    if (content.is_string()) {
      messages.emplace_back().content = content.text;
    } else {
      AddUserBlocks(content.items, message.Path("content"), messages);
    }
  } else if (role == "assistant") {
    Message& added = messages.emplace_back();
    added.role = Role::kAssistant;
    if (content.is_string()) {
      added.content = content.text;
    } else {
      AddAssistantBlocks(content.items, message.Path("content"), added);
    }
  } else if (role == "system") {
    Message& added = messages.emplace_back();
    added.role = Role::kSystem;
    added.content = TextOrBlocks(message, "content");
  } else {
    message.Fail("role", "is none of user, assistant, system");
  }
}

/// Tools in the form of the prompt: {"name", "description", "parameters"}.
std::vector<JsonValue> ReadTools(const RequestFields& fields, std::vector<std::string>& notes) {
  std::vector<JsonValue> functions;
  const std::vector<JsonValue>* tools = fields.List("tools");
  if (!tools) return functions;
  for (size_t i = 0; i < tools->size(); ++i) {
    const RequestFields tool((*tools)[i], fmt::format("tools[{}]", i));
    const std::string type = tool.String("type").value_or("custom");
    const std::string name = tool.RequireString("name");
    if (type != "custom") {
      notes.push_back(
          fmt::format("tools[{}] is run by Anthropic's own service and was left out", i));
      continue;
    }
    JsonValue& function = functions.emplace_back(JsonValue::Object());
    function.Set("name", JsonValue::String(name));
    if (const auto description = tool.String("description"))
      function.Set("description", JsonValue::String(*description));
    const JsonValue& schema = tool.Require("input_schema");
    if (!schema.is_object()) tool.Fail("input_schema", "has to be an object");
    function.Set("parameters", schema);
    if (tool.Boolean("strict").value_or(false)) {
      tool.Fail("strict",
                "arguments are not held to their schema while sampling; leave strict out and check "
                "them");
    }
  }
  return functions;
}

void ReadToolChoice(const RequestFields& fields, GenerationRequest& request) {
  const JsonValue* value = fields.Find("tool_choice");
  if (!value) return;
  const RequestFields choice(*value, "tool_choice");
  const std::string type = choice.RequireString("type");
  request.parallel_calls = !choice.Boolean("disable_parallel_tool_use").value_or(false);
  if (type == "any") {
    request.tool_choice = ToolChoice::kRequired;
  } else if (type == "none") {
    request.tool_choice = ToolChoice::kNone;
  } else if (type == "tool") {
    request.tool_choice = ToolChoice::kNamed;
    request.tool_name = choice.RequireString("name");
  } else if (type != "auto") {
    choice.Fail("type", "is none of auto, any, tool, none");
  }
}

/// output_config: effort, and the schema of the answer.
void ReadOutputConfig(const RequestFields& fields, GenerationRequest& request,
                      const ServedModel& model) {
  const JsonValue* config = fields.Find("output_config");
  if (!config) return;
  const RequestFields output(*config, "output_config");
  if (const auto effort = output.String("effort"))
    request.conversation->effort = ResolveEffort(*effort, model, "output_config.effort");
  output.Refuse("format", "answers are not held to a schema while sampling; ask for it in words");
}

class MessagesWriter : public ResponseWriter {
 public:
  explicit MessagesWriter(ResponseHead head) : head_(std::move(head)) {}

  OrderedJson Whole(const Outcome& outcome) override {
    const Reply& reply = outcome.replies.at(0);
    OrderedJson content = OrderedJson::array();
    if (!reply.reasoning.empty()) {
      content.push_back(
          {{"type", "thinking"}, {"thinking", reply.reasoning}, {"signature", kSignature}});
    }
    if (!reply.content.empty()) content.push_back({{"type", "text"}, {"text", reply.content}});
    for (size_t i = 0; i < reply.calls.size(); ++i) {
      content.push_back({{"type", "tool_use"},
                         {"id", reply.call_ids[i]},
                         {"name", reply.calls[i].name},
                         {"input", OrderedJson::parse(reply.calls[i].arguments, nullptr, false)}});
    }
    OrderedJson message = Message(std::move(content), UsageObject(outcome.usage));
    message["stop_reason"] = StopReason(reply);
    message["stop_sequence"] = StopSequence(reply);
    if (!outcome.ledger.is_null()) message["toaster"] = outcome.ledger;
    return message;
  }

  std::string Begin(int64_t prompt_tokens) override {
    Usage usage;
    usage.prompt_tokens = prompt_tokens;
    return ServerSentEvent(
        {{"type", "message_start"}, {"message", Message(OrderedJson::array(), UsageObject(usage))}},
        "message_start");
  }

  // Events follow one another in the order of the statements: each call may change the state.
  std::string Piece(size_t, const ReplyPiece& piece) override {
    const ReplyEvent& event = piece.event;
    std::string events;
    switch (event.kind) {
      case ReplyEvent::Kind::kReasoning:
        events = Open("thinking", {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
        events += Delta({{"type", "thinking_delta"}, {"thinking", event.text}});
        break;
      case ReplyEvent::Kind::kContent:
        events = Open("text", {{"type", "text"}, {"text", ""}});
        events += Delta({{"type", "text_delta"}, {"text", event.text}});
        break;
      case ReplyEvent::Kind::kCallBegin:
        events = Close();
        events += Open("tool_use", {{"type", "tool_use"},
                                    {"id", piece.call_id},
                                    {"name", event.text},
                                    {"input", OrderedJson::object()}});
        break;
      case ReplyEvent::Kind::kArguments:
        events = Delta({{"type", "input_json_delta"}, {"partial_json", event.text}});
        break;
      case ReplyEvent::Kind::kCallEnd:
        events = Close();
        break;
      case ReplyEvent::Kind::kWarning:
        break;
    }
    return events;
  }

  std::string End(const Outcome& outcome) override {
    const Reply& reply = outcome.replies.at(0);
    OrderedJson delta = {
        {"type", "message_delta"},
        {"delta", {{"stop_reason", StopReason(reply)}, {"stop_sequence", StopSequence(reply)}}},
        {"usage", UsageObject(outcome.usage)}};
    if (!outcome.ledger.is_null()) delta["toaster"] = outcome.ledger;
    return Close() + ServerSentEvent(delta, "message_delta") +
           ServerSentEvent({{"type", "message_stop"}}, "message_stop");
  }

  std::string Failure(const ApiError& error) override {
    return ServerSentEvent(ErrorBody(Protocol::kAnthropic, error), "error");
  }

  std::string KeepAlive() override { return ServerSentEvent({{"type", "ping"}}, "ping"); }

 private:
  /// Clients send it back with the thinking; nothing is signed, and nothing needs to be.
  static constexpr const char* kSignature = "unsigned";

  OrderedJson Message(OrderedJson content, OrderedJson usage) const {
    return {{"id", head_.id},
            {"type", "message"},
            {"role", "assistant"},
            {"model", head_.model},
            {"content", std::move(content)},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", std::move(usage)}};
  }

  static OrderedJson UsageObject(const Usage& usage) {
    return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", usage.cached_tokens},
            {"output_tokens", usage.completion_tokens}};
  }

  static std::string_view StopReason(const Reply& reply) {
    if (!reply.stop_string.empty()) return "stop_sequence";
    switch (reply.finish) {
      case FinishReason::kLength:
        return "max_tokens";
      case FinishReason::kToolCalls:
        return "tool_use";
      case FinishReason::kStop:
        break;
    }
    return "end_turn";
  }

  static OrderedJson StopSequence(const Reply& reply) {
    return reply.stop_string.empty() ? OrderedJson() : OrderedJson(reply.stop_string);
  }

  /// Begins a block of this kind, if none is open; another kind ends first.
  std::string Open(std::string_view kind, OrderedJson block) {
    if (open_ == kind) return "";
    std::string text = Close();
    open_ = kind;
    return text + ServerSentEvent({{"type", "content_block_start"},
                                   {"index", index_},
                                   {"content_block", std::move(block)}},
                                  "content_block_start");
  }

  std::string Delta(OrderedJson delta) const {
    return ServerSentEvent(
        {{"type", "content_block_delta"}, {"index", index_}, {"delta", std::move(delta)}},
        "content_block_delta");
  }

  std::string Close() {
    if (open_.empty()) return "";
    std::string text;
    if (open_ == "thinking") text = Delta({{"type", "signature_delta"}, {"signature", kSignature}});
    open_ = {};
    text +=
        ServerSentEvent({{"type", "content_block_stop"}, {"index", index_}}, "content_block_stop");
    ++index_;
    return text;
  }

  ResponseHead head_;
  std::string_view open_;  ///< the kind of block that is open; empty: none
  int64_t index_ = 0;
};

}  // namespace

GenerationRequest ParseMessagesRequest(const JsonValue& body, const ServedModel& model,
                                       bool counting) {
  const RequestFields fields(body);
  const std::optional<std::string> name = fields.String("model");
  if (!name || name->rfind("claude-", 0) != 0) CheckModelName(fields, model);
  if (const std::vector<JsonValue>* servers = fields.List("mcp_servers");
      servers && !servers->empty())
    fields.Fail("mcp_servers", "this server calls no MCP servers; offer their tools as tools");

  GenerationRequest request;
  Conversation& conversation = request.conversation.emplace();
  fields.Require("messages");
  const std::vector<JsonValue>& messages = *fields.List("messages");
  const std::string system = TextOrBlocks(fields, "system");
  if (!system.empty()) SystemMessage(conversation).content = system;
  for (size_t i = 0; i < messages.size(); ++i)
    AddMessage(RequestFields(messages[i], fmt::format("messages[{}]", i)), conversation.messages);
  if (messages.empty()) fields.Fail("messages", "is empty");
  // Anthropic's way to have an answer continued is to end with it.
  Message& last = conversation.messages.back();
  if (last.role == Role::kAssistant && last.tool_calls.empty()) last.without_eos = true;
  if (std::vector<JsonValue> tools = ReadTools(fields, request.notes); !tools.empty())
    SystemMessage(conversation).tools = std::move(tools);
  ReadToolChoice(fields, request);

  const std::optional<bool> thinking = ReadThinking(fields);
  conversation.thinking = thinking.value_or(false);
  ReadOutputConfig(fields, request, model);
  FinishConversation(request, thinking.value_or(false));
  if (fields.Find("context_management"))
    request.notes.push_back("context_management is left to the client");

  ReadSampling(fields, request);
  request.max_tokens = fields.Integer("max_tokens", 1, INT32_MAX);
  if (!request.max_tokens && !counting) fields.Fail("max_tokens", "is missing");
  request.stop = fields.Strings("stop_sequences", kMostStops);
  request.stream = fields.Boolean("stream").value_or(false);
  if (const JsonValue* metadata = fields.Find("metadata"))
    request.user_id = RequestFields(*metadata, "metadata").String("user_id").value_or("");
  return request;
}

std::unique_ptr<ResponseWriter> MakeMessagesWriter(const GenerationRequest&, ResponseHead head) {
  return std::make_unique<MessagesWriter>(std::move(head));
}

}  // namespace toaster
