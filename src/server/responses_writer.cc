#include <fmt/format.h>

#include <algorithm>

#include "server/responses_api.h"

namespace toaster {
namespace {

class ResponsesWriter : public ResponseWriter {
 public:
  ResponsesWriter(const ResponsesRequest& request, ResponseHead head)
      : head_(std::move(head)), echo_(request.echo), text_tools_(request.generation.text_tools) {}

  OrderedJson Whole(const Outcome& outcome) override {
    const Reply& reply = outcome.replies.at(0);
    if (!reply.reasoning.empty()) output_.push_back(ReasoningItem(reply.reasoning, "completed"));
    if (!reply.content.empty()) output_.push_back(MessageItem(reply.content, "completed"));
    for (size_t i = 0; i < reply.calls.size(); ++i) {
      item_id_ = NewId("fc");
      output_.push_back(CallItem(reply.call_ids[i], reply.calls[i].name, reply.calls[i].arguments,
                                 reply.calls[i].complete ? "completed" : "incomplete"));
    }
    return Ended(outcome);
  }

  // Events are numbered and follow one another in the order of the statements.
  std::string Begin(int64_t) override {
    std::string events = Event("response.created", {{"response", Response("in_progress")}});
    events += Event("response.in_progress", {{"response", Response("in_progress")}});
    return events;
  }

  std::string Piece(size_t, const ReplyPiece& piece) override {
    const ReplyEvent& event = piece.event;
    switch (event.kind) {
      case ReplyEvent::Kind::kReasoning: {
        std::string text = Open(Item::kReasoning);
        text_ += event.text;
        return text + Event("response.reasoning_text.delta", Place({{"delta", event.text}}));
      }
      case ReplyEvent::Kind::kContent: {
        std::string text = Open(Item::kMessage);
        text_ += event.text;
        return text + Event("response.output_text.delta",
                            Place({{"delta", event.text}, {"logprobs", OrderedJson::array()}}));
      }
      case ReplyEvent::Kind::kCallBegin: {
        std::string text = Close("completed");
        call_id_ = piece.call_id;
        name_ = event.text;
        return text + Open(Item::kCall);
      }
      case ReplyEvent::Kind::kArguments:
        text_ += event.text;
        if (IsTextTool(name_)) return "";
        return Event(
            "response.function_call_arguments.delta",
            {{"item_id", item_id_}, {"output_index", output_.size()}, {"delta", event.text}});
      case ReplyEvent::Kind::kCallEnd:
        return Close(event.complete ? "completed" : "incomplete");
      case ReplyEvent::Kind::kWarning:
        break;
    }
    return "";
  }

  std::string End(const Outcome& outcome) override {
    const bool cut = outcome.replies.at(0).finish == FinishReason::kLength;
    std::string text = Close(cut ? "incomplete" : "completed");
    return text + Event(cut ? "response.incomplete" : "response.completed",
                        {{"response", Ended(outcome)}});
  }

  std::string Failure(const ApiError& error) override {
    std::string text = Close("incomplete");
    OrderedJson response = Response("failed");
    response["error"] = {{"code", error.status() == 429 ? "rate_limit_exceeded" : "server_error"},
                         {"message", error.what()}};
    return text + Event("response.failed", {{"response", std::move(response)}});
  }

 private:
  enum class Item { kNone, kReasoning, kMessage, kCall };

  std::string NewId(std::string_view kind) const {
    return fmt::format("{}_{}", kind, RandomHex(32));
  }

  bool IsTextTool(const std::string& name) const {
    return std::find(text_tools_.begin(), text_tools_.end(), name) != text_tools_.end();
  }

  std::string Event(std::string_view type, const OrderedJson& data) {
    OrderedJson event = {{"type", type}, {"sequence_number", sequence_++}};
    event.update(data);
    return ServerSentEvent(event, type);
  }

  /// Says which part of which item `data` is about.
  OrderedJson Place(const OrderedJson& data) const {
    OrderedJson event = {
        {"item_id", item_id_}, {"output_index", output_.size()}, {"content_index", 0}};
    event.update(data);
    return event;
  }

  OrderedJson Response(std::string_view status) const {
    OrderedJson response = {{"id", head_.id},
                            {"object", "response"},
                            {"created_at", head_.created},
                            {"status", status},
                            {"background", false},
                            {"error", nullptr},
                            {"incomplete_details", nullptr},
                            {"model", head_.model},
                            {"output", output_},
                            {"usage", nullptr}};
    response.update(echo_);
    return response;
  }

  OrderedJson Ended(const Outcome& outcome) const {
    const bool cut = outcome.replies.at(0).finish == FinishReason::kLength;
    OrderedJson response = Response(cut ? "incomplete" : "completed");
    if (cut) response["incomplete_details"] = {{"reason", "max_output_tokens"}};
    const Usage& usage = outcome.usage;
    response["usage"] = {{"input_tokens", usage.prompt_tokens},
                         {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                         {"output_tokens", usage.completion_tokens},
                         {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
                         {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
    if (!outcome.ledger.is_null()) response["toaster"] = outcome.ledger;
    return response;
  }

  OrderedJson ReasoningItem(const std::string& text, std::string_view status) {
    if (item_id_.empty()) item_id_ = NewId("rs");
    OrderedJson content = OrderedJson::array();
    if (!text.empty()) content.push_back({{"type", "reasoning_text"}, {"text", text}});
    OrderedJson item = {{"id", std::exchange(item_id_, "")}, {"type", "reasoning"},
                        {"summary", OrderedJson::array()},   {"content", std::move(content)},
                        {"encrypted_content", nullptr},      {"status", status}};
    return item;
  }

  OrderedJson MessageItem(const std::string& text, std::string_view status) {
    if (item_id_.empty()) item_id_ = NewId("msg");
    OrderedJson content = OrderedJson::array();
    if (status != "in_progress") content.push_back(TextPart(text));
    return {{"id", std::exchange(item_id_, "")},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }

  /// The one part of an open item that has text.
  OrderedJson Part(const std::string& text) const {
    if (open_ == Item::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
    return TextPart(text);
  }

  static OrderedJson TextPart(const std::string& text) {
    return {{"type", "output_text"},
            {"text", text},
            {"annotations", OrderedJson::array()},
            {"logprobs", OrderedJson::array()}};
  }

  OrderedJson CallItem(const std::string& call_id, const std::string& name,
                       const std::string& arguments, std::string_view status) {
    OrderedJson item = {{"id", std::exchange(item_id_, "")},
                        {"type", IsTextTool(name) ? "custom_tool_call" : "function_call"},
                        {"status", status},
                        {"call_id", call_id},
                        {"name", name}};
    if (IsTextTool(name)) {
      item["input"] = TextArgument(arguments);
    } else {
      item["arguments"] = arguments;
    }
    return item;
  }

  /// The text that a call of a text tool carries: its argument "input", or whatever was written.
  static std::string TextArgument(const std::string& arguments) {
    const OrderedJson parsed = OrderedJson::parse(arguments, nullptr, false);
    if (parsed.is_object() && parsed.contains("input") && parsed["input"].is_string())
      return parsed["input"];
    return arguments;
  }

  OrderedJson OpenItem(std::string_view status) {
    switch (open_) {
      case Item::kReasoning:
        return ReasoningItem(text_, status);
      case Item::kMessage:
        return MessageItem(text_, status);
      case Item::kCall:
      case Item::kNone:
        break;
    }
    return CallItem(call_id_, name_, text_, status);
  }

  std::string Open(Item kind) {
    if (open_ == kind && kind != Item::kCall) return "";
    std::string events = Close("completed");
    open_ = kind;
    text_.clear();
    item_id_ = NewId(kind == Item::kReasoning ? "rs" : kind == Item::kMessage ? "msg" : "fc");
    const std::string id = item_id_;
    const OrderedJson item = OpenItem("in_progress");
    item_id_ = id;
    events +=
        Event("response.output_item.added", {{"output_index", output_.size()}, {"item", item}});
    if (kind != Item::kCall)
      events += Event("response.content_part.added", Place({{"part", Part("")}}));
    return events;
  }

  std::string Close(std::string_view status) {
    if (open_ == Item::kNone) return "";
    std::string events;
    if (open_ == Item::kReasoning) {
      events += Event("response.reasoning_text.done", Place({{"text", text_}}));
      events += Event("response.content_part.done", Place({{"part", Part(text_)}}));
    } else if (open_ == Item::kMessage) {
      events += Event("response.output_text.done",
                      Place({{"text", text_}, {"logprobs", OrderedJson::array()}}));
      events += Event("response.content_part.done", Place({{"part", Part(text_)}}));
    } else if (IsTextTool(name_)) {
      const std::string input = TextArgument(text_);
      const OrderedJson place = {{"item_id", item_id_}, {"output_index", output_.size()}};
      OrderedJson delta = place, done = place;
      delta["delta"] = input;
      done["input"] = input;
      events += Event("response.custom_tool_call_input.delta", delta);
      events += Event("response.custom_tool_call_input.done", done);
    } else {
      events += Event("response.function_call_arguments.done", {{"item_id", item_id_},
                                                                {"output_index", output_.size()},
                                                                {"name", name_},
                                                                {"arguments", text_}});
    }
    OrderedJson item = OpenItem(status);
    events +=
        Event("response.output_item.done", {{"output_index", output_.size()}, {"item", item}});
    output_.push_back(std::move(item));
    open_ = Item::kNone;
    return events;
  }

  ResponseHead head_;
  OrderedJson echo_;
  std::vector<std::string> text_tools_;
  OrderedJson output_ = OrderedJson::array();  ///< the items that are complete
  int64_t sequence_ = 0;
  Item open_ = Item::kNone;
  std::string item_id_, text_, call_id_, name_;  ///< of the open item
};

}  // namespace

std::unique_ptr<ResponseWriter> MakeResponsesWriter(const ResponsesRequest& request,
                                                    ResponseHead head) {
  return std::make_unique<ResponsesWriter>(request, std::move(head));
}

}  // namespace toaster
