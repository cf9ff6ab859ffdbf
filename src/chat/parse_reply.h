#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "chat/prompt.h"
#include "tokenizer/utf8.h"

namespace toaster {

/// A piece of what the model said, in the terms of a chat API.
struct ReplyEvent {
  enum class Kind {
    kReasoning,  ///< text: more of the reasoning
    kContent,    ///< text: more of the answer
    kCallBegin,  ///< text: the name of the tool; call: its number, from 0
    kArguments,  ///< text: more of the JSON text of the call's arguments
    kCallEnd,  ///< the arguments are one JSON object now; complete: nothing of the call is missing
    kWarning,  ///< text: one line on what was wrong and how it was taken
  };
  Kind kind = Kind::kContent;
  std::string text;
  size_t call = 0;
  bool complete = true;

  bool operator==(const ReplyEvent&) const = default;
};

/// A tool call as parsed.
struct ParsedCall {
  std::string name;
  std::string arguments;  ///< always a JSON object
  /// False if the reply was cut off inside the call: its arguments are what came, not what was
  /// meant.
  bool complete = true;
  /// What the model wrote for it, as prompt segments: the sampled bytes of a whole block of calls
  /// are those of its calls, one after the other. Empty for an incomplete call.
  std::vector<PromptSegment> sampled;
};

/// Why a reply ended.
enum class ReplyEnd {
  kStop,    ///< the model ended it
  kLength,  ///< it was cut off
};

/// Takes a reply apart as it is sampled (chat-format.md 6.2): bytes in, events out. The same bytes
/// give the same events however they are cut (neighbouring deltas joined); text that could be the
/// beginning of markup is held back until it is decided.
///
/// It never fails. What the released format does not allow is taken as it was most likely meant,
/// with a warning: a call inside the reasoning (the reasoning goes on behind the block, if anything
/// does), end tags that are missing, a block without its outer tag, a parameter given twice (the
/// first counts), a string="false" value that is no JSON (it becomes a string), text behind the
/// calls (it is content). Control tokens that are out of place are dropped. So no markup reaches
/// the text of reasoning and content, and arguments are JSON always.
///
/// Text in events is well-formed UTF-8. Not safe to use from several threads.
class ReplyParser {
 public:
  /// `thinking`: the prompt ended with <think>, so the reply begins with reasoning.
  explicit ReplyParser(bool thinking) : in_reasoning_(thinking) {}

  /// Appends the events that `bytes` decide to `events`.
  void Push(std::string_view bytes, std::vector<ReplyEvent>& events);
  /// The end of the reply; nothing may follow.
  void Finish(ReplyEnd end, std::vector<ReplyEvent>& events);

  /// The calls so far; complete after Finish(), which may add to what was sampled.
  const std::vector<ParsedCall>& calls() const { return calls_; }

 private:
  enum class State {
    kText,               ///< reasoning or content
    kBetweenCalls,       ///< inside a block, outside its calls
    kCallHeader,         ///< behind <｜DSML｜invoke
    kSkippedCall,        ///< inside a call whose header makes no sense
    kBetweenParameters,  ///< inside a call, outside its parameters
    kParameterHeader,    ///< behind <｜DSML｜parameter
    kValue,              ///< inside a parameter
    kAfterBlock,         ///< behind a block, with nothing but white space so far
    kEnded,              ///< behind the end token
  };
  enum class ValueKind { kString, kJson, kDiscarded };

  /// Each does what the waiting bytes decide and returns false if more are needed.
  void Run();
  bool Step();
  bool StepText();
  bool StepBetweenCalls();
  bool StepCallHeader();
  bool StepSkippedCall();
  bool StepBetweenParameters();
  bool StepParameterHeader();
  bool StepValue();
  bool StepAfterBlock();

  bool StepTextTag(size_t place);
  void HandleTextToken(size_t place, std::string_view token);
  void OpenBlock(size_t place, std::string_view tag);
  void CloseBlock();
  void BeginCall(std::string_view name);
  void EndCall(bool complete);
  void EndValue();
  void FinishInside();

  void EmitText(size_t length);
  void EmitArguments(std::string_view text);
  void Warn(std::string text);
  void Add(ReplyEvent::Kind kind, std::string_view text);

  std::string_view Waiting() const { return std::string_view(pending_).substr(decided_); }
  void Drop(size_t length) { decided_ += length; }
  void Record(size_t length);
  void RecordTag(size_t length);
  bool RecordTagEnd(std::string_view tag);
  void RecordNoise(size_t length);

  State state_ = State::kText;
  std::string pending_;
  size_t decided_ = 0;  ///< bytes of pending_ that are dealt with
  bool final_ = false;  ///< no more will come
  ReplyEnd end_ = ReplyEnd::kStop;
  std::vector<ReplyEvent>* events_ = nullptr;  ///< where this Push() or Finish() adds

  bool in_reasoning_;
  bool content_begun_ = false;  ///< something other than white space was content
  bool warned_noise_ = false;
  Utf8Buffer text_;
  bool gap_ = false;                           ///< something was taken out where the text goes on
  std::string reasoning_tail_, content_tail_;  ///< the last bytes of either

  bool wrapped_ = true;  ///< the block began with its outer tag
  Prompt recorded_;      ///< what was sampled since the last call ended
  std::vector<ParsedCall> calls_;
  std::vector<std::string> keys_;  ///< parameters of the call so far
  ValueKind value_kind_ = ValueKind::kString;
  std::string value_;  ///< of a string="false" parameter
};

}  // namespace toaster
