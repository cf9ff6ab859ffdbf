#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "chat/parse_reply.h"
#include "engine/stop_strings.h"
#include "server/generation_request.h"
#include "server/reply.h"
#include "tokenizer/tokenizer.h"

namespace toaster {

/// Makes a reply of sampled tokens: takes reasoning, answer and tool calls apart, ends it at stop
/// strings (which count in the answer only), gives the calls ids, collects log probabilities. Used
/// by one thread.
class ReplyAssembler {
 public:
  /// `begun`: the beginning of the reply that the prompt already holds, for a forced tool call.
  ReplyAssembler(const GenerationRequest& request, Tokenizer tokenizer,
                 std::string_view begun = "");

  /// What the begun call tells already, before the first token.
  void Begin(std::vector<ReplyPiece>& pieces) { Handle(pieces); }
  /// Appends what `token` decides to `pieces`. False: the reply is over, no more tokens are wanted.
  bool Push(int32_t token, const TokenLogprob* logprob, std::vector<ReplyPiece>& pieces);
  /// The end of the reply; `end_token`: the model sampled its end token, which was not pushed.
  void Finish(ReplyEnd end, bool end_token, std::vector<ReplyPiece>& pieces);

  const Reply& reply() const { return reply_; }

 private:
  void Handle(std::vector<ReplyPiece>& pieces);
  void AddText(std::string text, std::vector<ReplyPiece>& pieces);
  void Keep(ReplyPiece piece, std::vector<ReplyPiece>& pieces);

  Tokenizer tokenizer_;
  bool chat_;       ///< the reply has the chat's markup
  bool one_call_;   ///< the reply ends after its first call
  bool reasoning_;  ///< so far nothing but reasoning
  bool over_ = false;
  ReplyParser parser_;
  Utf8Buffer text_;  ///< of a reply without markup
  StopStrings stops_;
  std::vector<ReplyEvent> events_;
  std::vector<TokenLogprob> pending_;  ///< of tokens whose text was not told yet
  Reply reply_;
};

}  // namespace toaster
