#pragma once

// What the tests of the protocols share: a model, replies made of texts, streams taken apart.

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "server/generation_request.h"
#include "server/reply.h"
#include "server/reply_assembler.h"

namespace toaster {

inline ServedModel TestModel() {
  return {"toaster-test", {}, {Effort::kHigh, Effort::kMax}, 1024, 300};
}

/// A whole reply made of the bytes of `text`, one token each, and everything told on the way.
struct Made {
  std::vector<ReplyPiece> pieces;
  Reply reply;
};
inline Made MakeReply(const GenerationRequest& request, std::string_view text,
                      ReplyEnd end = ReplyEnd::kStop, bool logprobs = false) {
  const Tokenizer tokenizer = Tokenizer::Bytes(300);
  ReplyAssembler assembler(request, tokenizer);
  Made made;
  bool wanted = true;
  for (const int32_t token : tokenizer.Encode(text, ControlTokens::kRecognised)) {
    const TokenLogprob logprob = {std::string(tokenizer.TokenBytes(token)), -0.5F, {}};
    wanted = assembler.Push(token, logprobs ? &logprob : nullptr, made.pieces);
    if (!wanted) break;
  }
  assembler.Finish(end, wanted && end == ReplyEnd::kStop, made.pieces);
  made.reply = assembler.reply();
  return made;
}

inline std::string StreamOf(ResponseWriter& writer, const Made& made, const Usage& usage) {
  std::string stream = writer.Begin(usage.prompt_tokens);
  for (const ReplyPiece& piece : made.pieces) stream += writer.Piece(0, piece);
  return stream + writer.End({{made.reply}, usage, {}});
}

inline constexpr const char* kTwoCalls =
    "need clock</think>One moment.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_time\">\n"
    "<｜DSML｜parameter name=\"zone\" string=\"true\">Oslo</｜DSML｜parameter>\n"
    "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"get_time\">\n"
    "<｜DSML｜parameter name=\"h24\" string=\"false\">true</｜DSML｜parameter>\n"
    "</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

/// The data of a stream's events, parsed; "[DONE]" as a string.
inline std::vector<OrderedJson> Events(std::string_view stream) {
  std::vector<OrderedJson> events;
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    const std::string_view event = stream.substr(0, end);
    const size_t data = event.find("data: ");
    const std::string_view text = event.substr(data + 6);
    events.push_back(text == "[DONE]" ? OrderedJson("[DONE]") : OrderedJson::parse(text));
    stream.remove_prefix(end + 2);
  }
  return events;
}

}  // namespace toaster
