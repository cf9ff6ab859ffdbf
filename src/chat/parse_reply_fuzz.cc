// Whatever a model says: the events don't depend on how the bytes are cut, no markup reaches
// reasoning or content, and arguments are JSON objects. The first bytes choose the cuts and the
// mode.

#include <cstdlib>
#include <string>
#include <vector>

#include "chat/parse_reply.h"
#include "chat/python_json.h"
#include "tokenizer/special_tokens.h"

namespace {

using toaster::ReplyEnd;
using toaster::ReplyEvent;
using toaster::ReplyParser;

struct Reply {
  std::string log;  ///< all events, neighbouring deltas joined
  std::string reasoning, content;
};

Reply Parse(std::string_view text, size_t step, bool thinking, ReplyEnd end) {
  ReplyParser parser(thinking);
  std::vector<ReplyEvent> events;
  for (size_t place = 0; place < text.size(); place += step)
    parser.Push(text.substr(place, step), events);
  parser.Finish(end, events);
  Reply reply;
  const ReplyEvent* last = nullptr;
  for (const ReplyEvent& event : events) {
    const bool delta = event.kind == ReplyEvent::Kind::kReasoning ||
                       event.kind == ReplyEvent::Kind::kContent ||
                       event.kind == ReplyEvent::Kind::kArguments;
    if (event.kind == ReplyEvent::Kind::kReasoning) reply.reasoning += event.text;
    if (event.kind == ReplyEvent::Kind::kContent) reply.content += event.text;
    if (!delta || !last || last->kind != event.kind || last->call != event.call) {
      reply.log += "\n";
      reply.log += std::to_string(static_cast<int>(event.kind));
      reply.log += event.complete ? "+" : "-";
      reply.log += std::to_string(event.call) + ":";
    }
    reply.log += event.text;
    last = &event;
  }
  for (const toaster::ParsedCall& call : parser.calls()) {
    const auto arguments = toaster::TryParsePythonJson(call.arguments);
    if (!arguments || !arguments->is_object()) std::abort();
    for (const toaster::PromptSegment& segment : call.sampled) reply.log += segment.text;
  }
  return reply;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const bool thinking = data[0] & 1;
  const ReplyEnd end = data[0] & 2 ? ReplyEnd::kStop : ReplyEnd::kLength;
  const size_t step = 1 + data[1] % 40;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Reply whole = Parse(text, text.size() + 1, thinking, end);
  if (Parse(text, step, thinking, end).log != whole.log) std::abort();
  for (const std::string* shown : {&whole.reasoning, &whole.content}) {
    for (const std::string_view token :
         {toaster::kThinkToken, toaster::kEndThinkToken, toaster::kDsmlToken, toaster::kBosToken,
          toaster::kEosToken, toaster::kUserToken, toaster::kAssistantToken}) {
      if (shown->find(token) != std::string::npos) std::abort();
    }
    if (toaster::WellFormedPrefix(*shown) != shown->size()) std::abort();
  }
  return 0;
}
