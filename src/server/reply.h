#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chat/parse_reply.h"
#include "server/api_error.h"

namespace toaster {

/// A token with the natural logarithm of its probability.
struct TokenLogprob {
  std::string bytes;
  float logprob = 0;
  std::vector<TokenLogprob> alternatives;  ///< the most likely tokens at its place
};

enum class FinishReason {
  kStop,       ///< the model ended its reply, or a stop string did
  kLength,     ///< as many tokens as were asked for, or as fit
  kToolCalls,  ///< the model waits for the results of its calls
};

/// More of a reply: an event with the id of the call it belongs to, and the log probabilities that
/// were told since the last one.
struct ReplyPiece {
  ReplyEvent event;
  std::string call_id;
  std::vector<TokenLogprob> logprobs;
};

/// One reply, as far as it has come.
struct Reply {
  std::string reasoning, content;
  std::vector<ParsedCall> calls;
  std::vector<std::string> call_ids;  ///< one per call
  std::vector<TokenLogprob> reasoning_logprobs, content_logprobs;
  FinishReason finish = FinishReason::kStop;
  std::string stop_string;         ///< the one that ended the reply; empty: none did
  int64_t tokens = 0;              ///< sampled, with the end token
  int64_t reasoning_tokens = 0;    ///< of them, before </think>
  std::vector<std::string> notes;  ///< what was odd about it and how it was taken
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  ///< of the prompt, taken from the cache
  int64_t completion_tokens = 0;
  int64_t reasoning_tokens = 0;
};

/// Everything a request came to.
struct Outcome {               // NOLINT(bugprone-exception-escape): moving JSON throws nothing
  std::vector<Reply> replies;  ///< one per choice
  Usage usage;
  OrderedJson ledger;  ///< the vendor field; null: none
};

/// What every response begins with.
struct ResponseHead {
  std::string id;
  int64_t created = 0;  ///< seconds since 1970
  std::string model;
};

/// Says an outcome in the words of one protocol: as one JSON object, or as server-sent events.
/// Makes one response; used by one thread.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  virtual OrderedJson Whole(const Outcome& outcome) = 0;

  // A stream is Begin(), Piece()s, and either End() or Failure(). Each returns the bytes to send.
  virtual std::string Begin(int64_t prompt_tokens) = 0;
  virtual std::string Piece(size_t choice, const ReplyPiece& piece) = 0;
  virtual std::string End(const Outcome& outcome) = 0;
  virtual std::string Failure(const ApiError& error) = 0;
  /// Sent when there was nothing to say for a while.
  virtual std::string KeepAlive() { return ": keep-alive\n\n"; }
};

/// One server-sent event; without a name only data.
std::string ServerSentEvent(const OrderedJson& data, std::string_view name = "");

/// "stop", "length" or "tool_calls".
std::string_view OpenAiFinishReason(FinishReason reason);
/// The usage object of the chat and text completion APIs, with DeepSeek's fields.
OrderedJson OpenAiUsage(const Usage& usage);

/// `count` random hexadecimal digits from the operating system. Any thread.
std::string RandomHex(size_t count);

}  // namespace toaster
