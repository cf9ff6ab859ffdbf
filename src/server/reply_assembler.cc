#include "server/reply_assembler.h"

#include "tokenizer/special_tokens.h"

namespace toaster {

ReplyAssembler::ReplyAssembler(const GenerationRequest& request, Tokenizer tokenizer,
                               std::string_view begun)
    : tokenizer_(std::move(tokenizer)),
      chat_(request.conversation.has_value()),
      one_call_(!request.parallel_calls),
      reasoning_(request.ReplyReasons()),
      parser_(request.ReplyReasons()),
      stops_(request.stop) {
  if (!begun.empty()) parser_.Push(begun, events_);
}

bool ReplyAssembler::Push(int32_t token, const TokenLogprob* logprob,
                          std::vector<ReplyPiece>& pieces) {
  if (over_) return false;
  ++reply_.tokens;
  const std::string_view bytes = tokenizer_.TokenBytes(token);
  const bool control = tokenizer_.IsControlToken(token);
  if (control && bytes == kEndThinkToken) reasoning_ = false;
  if (reasoning_) ++reply_.reasoning_tokens;
  if (logprob && !control) pending_.push_back(*logprob);
  if (chat_) {
    parser_.Push(bytes, events_);
  } else if (!control) {
    events_.push_back({ReplyEvent::Kind::kContent, text_.Push(bytes)});
  }
  Handle(pieces);
  return !over_;
}

void ReplyAssembler::Finish(ReplyEnd end, bool end_token, std::vector<ReplyPiece>& pieces) {
  if (end_token) ++reply_.tokens;
  if (stops_.found()) {
    reply_.stop_string = stops_.match();
  } else if (chat_) {
    const bool cut_after_call = over_;
    parser_.Finish(end, events_);
    if (cut_after_call) events_.clear();
    Handle(pieces);
  } else {
    events_.push_back({ReplyEvent::Kind::kContent, text_.Finish()});
    Handle(pieces);
  }
  if (!stops_.found()) AddText(stops_.Finish(), pieces);
  if (chat_) reply_.calls = parser_.calls();
  if (one_call_ && reply_.calls.size() > 1) reply_.calls.resize(1);
  reply_.call_ids.resize(reply_.calls.size());
  const bool called = !reply_.calls.empty() && reply_.calls.back().complete;
  reply_.finish = end == ReplyEnd::kLength ? FinishReason::kLength
                  : called                 ? FinishReason::kToolCalls
                                           : FinishReason::kStop;
}

void ReplyAssembler::Handle(std::vector<ReplyPiece>& pieces) {
  for (ReplyEvent& event : events_) {
    if (over_) break;
    switch (event.kind) {
      case ReplyEvent::Kind::kContent:
        AddText(stops_.Push(event.text), pieces);
        over_ = stops_.found();
        break;
      case ReplyEvent::Kind::kWarning:
        reply_.notes.push_back(event.text);
        break;
      case ReplyEvent::Kind::kCallBegin:
        pending_.clear();
        reply_.call_ids.push_back("call_" + RandomHex(24));
        Keep({std::move(event), reply_.call_ids.back(), {}}, pieces);
        break;
      case ReplyEvent::Kind::kCallEnd:
        over_ = one_call_;
        [[fallthrough]];
      case ReplyEvent::Kind::kArguments:
        pending_.clear();
        Keep({std::move(event), reply_.call_ids.back(), {}}, pieces);
        break;
      case ReplyEvent::Kind::kReasoning:
        reply_.reasoning += event.text;
        Keep({std::move(event), "", {}}, pieces);
        break;
    }
  }
  events_.clear();
}

void ReplyAssembler::AddText(std::string text, std::vector<ReplyPiece>& pieces) {
  if (text.empty()) return;
  reply_.content += text;
  Keep({{ReplyEvent::Kind::kContent, std::move(text)}, "", {}}, pieces);
}

void ReplyAssembler::Keep(ReplyPiece piece, std::vector<ReplyPiece>& pieces) {
  const bool reasoning = piece.event.kind == ReplyEvent::Kind::kReasoning;
  if (reasoning || piece.event.kind == ReplyEvent::Kind::kContent) {
    std::vector<TokenLogprob>& all =
        reasoning ? reply_.reasoning_logprobs : reply_.content_logprobs;
    all.insert(all.end(), pending_.begin(), pending_.end());
    piece.logprobs = std::move(pending_);
    pending_.clear();
  }
  pieces.push_back(std::move(piece));
}

}  // namespace toaster
