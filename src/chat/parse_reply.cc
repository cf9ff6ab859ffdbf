#include "chat/parse_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "chat/python_json.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

constexpr std::string_view kOpen = "<｜DSML｜";
constexpr std::string_view kClose = "</｜DSML｜";
constexpr std::string_view kBlockTag = "<｜DSML｜tool_calls";
constexpr std::string_view kCallTag = "<｜DSML｜invoke";
constexpr std::string_view kParameterTag = "<｜DSML｜parameter";
constexpr std::string_view kBlockEnd = "</｜DSML｜tool_calls";
constexpr std::string_view kCallEnd = "</｜DSML｜invoke";
constexpr std::string_view kParameterEnd = "</｜DSML｜parameter>";

constexpr size_t kMaxTagBytes = 1024;
constexpr size_t kLongestMarkup = 64;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// What has no place in the text of reasoning or content. None begins another.
constexpr std::array kMarkup = {
    kOpen,        kClose,         kDsmlToken,      kThinkToken,  kEndThinkToken,
    kEosToken,    kBosToken,      kPadToken,       kUserToken,   kAssistantToken,
    kActionToken, kQueryToken,    kAuthorityToken, kDomainToken, kReadUrlToken,
    kTitleToken,  kFimBeginToken, kFimHoleToken,   kFimEndToken, kLatestReminderToken};

bool IsWhiteSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

size_t WhiteSpace(std::string_view text) {
  return static_cast<size_t>(std::find_if_not(text.begin(), text.end(), IsWhiteSpace) -
                             text.begin());
}

struct Found {
  size_t place = 0;         ///< where the markup, or what may become some, begins; else the end
  std::string_view markup;  ///< empty: none is complete at `place`
};

/// The first place in `text` where one of `markups` stands or may be about to.
template <typename List>
Found FindMarkup(std::string_view text, const List& markups) {
  for (size_t place = 0; place < text.size(); ++place) {
    const char c = text[place];
    if (c != '<' && c != kDsmlToken[0]) continue;
    const std::string_view rest = text.substr(place);
    for (const std::string_view markup : markups) {
      if (rest.substr(0, markup.size()) == markup) return {place, markup};
      if (markup.substr(0, rest.size()) == rest) return {place, {}};
    }
  }
  return {text.size(), {}};
}

/// True if `text` ends with the beginning of some markup.
bool EndsInMarkup(std::string_view text) {
  const Found found = FindMarkup(text, kMarkup);
  return found.markup.empty() && found.place < text.size();
}

/// name="value" pairs up to '>'.
struct Attributes {
  std::map<std::string, std::string, std::less<>> values;
  size_t length = 0;  ///< bytes read, with the '>'
};

enum class Reading { kDone, kNeedsMore, kMalformed };

Reading ReadAttributes(std::string_view text, Attributes& attributes) {
  const std::string_view all = text;
  if (text.size() > kMaxTagBytes) text = text.substr(0, kMaxTagBytes);
  const Reading at_end = all.size() >= kMaxTagBytes ? Reading::kMalformed : Reading::kNeedsMore;
  size_t position = 0;
  for (;;) {
    position += WhiteSpace(text.substr(position));
    if (position >= text.size()) return at_end;
    if (text[position] == '>') {
      attributes.length = position + 1;
      return Reading::kDone;
    }
    const size_t name_end = text.find_first_of("=<>\"\n ", position);
    if (name_end == text.npos) return at_end;
    if (name_end == position || text[name_end] != '=') return Reading::kMalformed;
    if (name_end + 1 >= text.size()) return at_end;
    if (text[name_end + 1] != '"') return Reading::kMalformed;
    const size_t value_end = text.find('"', name_end + 2);
    if (value_end == text.npos) return at_end;
    attributes.values[std::string(text.substr(position, name_end - position))] =
        text.substr(name_end + 2, value_end - name_end - 2);
    position = value_end + 1;
  }
}

}  // namespace

void ReplyParser::Push(std::string_view bytes, std::vector<ReplyEvent>& events) {
  CHECK(!final_, "bytes after the end");
  events_ = &events;
  pending_ += bytes;
  Run();
}

void ReplyParser::Finish(ReplyEnd end, std::vector<ReplyEvent>& events) {
  CHECK(!final_, "a second end");
  events_ = &events;
  final_ = true;
  end_ = end;
  Run();
  FinishInside();
}

void ReplyParser::Run() {
  while (Step()) {
  }
  pending_.erase(0, decided_);
  decided_ = 0;
}

bool ReplyParser::Step() {
  switch (state_) {
    case State::kText:
      return StepText();
    case State::kBetweenCalls:
      return StepBetweenCalls();
    case State::kCallHeader:
      return StepCallHeader();
    case State::kSkippedCall:
      return StepSkippedCall();
    case State::kBetweenParameters:
      return StepBetweenParameters();
    case State::kParameterHeader:
      return StepParameterHeader();
    case State::kValue:
      return StepValue();
    case State::kAfterBlock:
      return StepAfterBlock();
    case State::kEnded:
      break;
  }
  if (WhiteSpace(Waiting()) < Waiting().size() && !std::exchange(warned_noise_, true))
    Warn("dropped what stands behind the end of the reply");
  Drop(Waiting().size());
  return false;
}

// --- reasoning and content

bool ReplyParser::StepText() {
  const Found found = FindMarkup(Waiting(), kMarkup);
  if (!found.markup.empty()) {
    if (found.markup == kOpen || found.markup == kClose) return StepTextTag(found.place);
    HandleTextToken(found.place, found.markup);
    return true;
  }
  if (final_) {
    // A tag cut off in its middle is no text.
    const std::string_view rest = Waiting().substr(found.place);
    const bool tag = rest.size() > 2 && (kOpen.substr(0, 4) == rest.substr(0, 4) ||
                                         kClose.substr(0, 5) == rest.substr(0, 5));
    EmitText(tag ? found.place : Waiting().size());
    if (tag) Warn("dropped a tag that was cut off");
    Drop(Waiting().size());
    return false;
  }
  // Up to two line feeds before a tag belong to the block it opens.
  size_t length = found.place;
  for (int i = 0; i < 2 && length > 0 && Waiting()[length - 1] == '\n'; ++i) --length;
  EmitText(length);
  return false;
}

bool ReplyParser::StepTextTag(size_t place) {
  const std::string_view rest = Waiting().substr(place);
  for (const std::string_view tag : {kBlockTag, kCallTag}) {
    if (rest.substr(0, tag.size()) == tag) {
      OpenBlock(place, tag);
      return true;
    }
    if (!final_ && tag.substr(0, rest.size()) == rest) return false;
  }
  // A stray tag: drop it, to its end or as far as it can be one.
  const std::string_view tag = rest.substr(0, kMaxTagBytes);
  size_t end = tag.find_first_of(">\n");
  if (end == tag.npos && tag.size() < kMaxTagBytes && !final_) return false;
  end = end == tag.npos ? tag.size() : end + (tag[end] == '>' ? 1 : 0);
  EmitText(place);
  Drop(end);
  gap_ = true;
  Warn("dropped a tool-call tag outside of any call");
  return true;
}

void ReplyParser::HandleTextToken(size_t place, std::string_view token) {
  EmitText(place);
  Drop(token.size());
  gap_ = true;
  if (token == kEosToken) {
    Add(in_reasoning_ ? ReplyEvent::Kind::kReasoning : ReplyEvent::Kind::kContent, text_.Finish());
    state_ = State::kEnded;
  } else if (token == kEndThinkToken && in_reasoning_) {
    Add(ReplyEvent::Kind::kReasoning, text_.Finish());
    in_reasoning_ = false;
  } else if (token == kThinkToken && !in_reasoning_ && !content_begun_) {
    Add(ReplyEvent::Kind::kContent, text_.Finish());
    in_reasoning_ = true;
    Warn("reasoning where an answer was asked for");
  } else {
    Warn(fmt::format("dropped {} in the {}", token, in_reasoning_ ? "reasoning" : "answer"));
  }
}

/// `place`: where the tag begins in the waiting bytes.
void ReplyParser::OpenBlock(size_t place, std::string_view tag) {
  size_t text = place;
  for (int i = 0; i < 2 && text > 0 && Waiting()[text - 1] == '\n'; ++i) --text;
  EmitText(text);
  Add(in_reasoning_ ? ReplyEvent::Kind::kReasoning : ReplyEvent::Kind::kContent, text_.Finish());
  if (in_reasoning_) Warn("a tool call inside the reasoning");
  wrapped_ = tag == kBlockTag;
  if (!wrapped_) Warn("a tool call outside of a block of calls");
  RecordTag(place - text + tag.size());
  warned_noise_ = false;
  state_ = wrapped_ ? State::kBetweenCalls : State::kCallHeader;
}

// --- blocks of calls

bool ReplyParser::StepBetweenCalls() {
  const Found found = FindMarkup(Waiting(), std::array{kCallTag, kBlockEnd, kEosToken});
  RecordNoise(found.place);
  if (found.markup.empty()) {
    if (final_) RecordNoise(Waiting().size());
    return false;
  }
  if (found.markup == kCallTag) {
    RecordTag(kCallTag.size());
    state_ = State::kCallHeader;
    return true;
  }
  if (found.markup == kBlockEnd) {
    if (!RecordTagEnd(kBlockEnd)) return false;
    CloseBlock();
    return true;
  }
  Warn("a block of tool calls without its end");
  CloseBlock();
  return true;
}

/// What was recorded since the last call belongs to that.
void ReplyParser::CloseBlock() {
  if (!calls_.empty() && !calls_.back().sampled.empty()) {
    Prompt whole;
    whole.Add(calls_.back().sampled);
    whole.Add(recorded_.segments());
    calls_.back().sampled = whole.segments();
  }
  recorded_ = Prompt();
  gap_ = true;
  state_ = State::kAfterBlock;
}

bool ReplyParser::StepAfterBlock() {
  const size_t white = WhiteSpace(Waiting());
  const std::string_view rest = Waiting().substr(white);
  if (rest.empty() && !final_) return false;
  const bool ends = rest.substr(0, kEosToken.size()) == kEosToken;
  if (!ends && !final_ && kEosToken.substr(0, rest.size()) == rest) return false;
  if (!ends && !rest.empty()) {
    Warn("the reply goes on behind the tool calls");
    state_ = State::kText;
    return true;
  }
  Record(white);
  CloseBlock();
  Drop(ends ? kEosToken.size() : 0);
  state_ = State::kEnded;
  return true;
}

bool ReplyParser::StepCallHeader() {
  Attributes attributes;
  const Reading reading = ReadAttributes(Waiting(), attributes);
  if (reading == Reading::kNeedsMore && !final_) return false;
  const auto name = attributes.values.find("name");
  warned_noise_ = false;
  if (reading != Reading::kDone || name == attributes.values.end()) {
    Warn("dropped a tool call without a name");
    state_ = State::kSkippedCall;
    return true;
  }
  BeginCall(name->second);
  Record(attributes.length);
  state_ = State::kBetweenParameters;
  return true;
}

bool ReplyParser::StepSkippedCall() {
  const Found found = FindMarkup(Waiting(), std::array{kCallTag, kCallEnd, kBlockEnd, kEosToken});
  Record(found.place);
  if (found.markup.empty()) {
    if (final_) Record(Waiting().size());
    return false;
  }
  if (found.markup == kCallEnd && !RecordTagEnd(kCallEnd)) return false;
  state_ = State::kBetweenCalls;
  if (!wrapped_ && found.markup == kCallEnd) CloseBlock();
  return true;
}

bool ReplyParser::StepBetweenParameters() {
  const Found found =
      FindMarkup(Waiting(), std::array{kParameterTag, kCallEnd, kBlockEnd, kCallTag, kEosToken});
  RecordNoise(found.place);
  if (found.markup.empty()) {
    if (final_) RecordNoise(Waiting().size());
    return false;
  }
  if (found.markup == kParameterTag) {
    RecordTag(kParameterTag.size());
    state_ = State::kParameterHeader;
    return true;
  }
  if (found.markup == kCallEnd) {
    if (!RecordTagEnd(kCallEnd)) return false;
  } else {
    Warn("a tool call without its end");
  }
  EndCall(true);
  warned_noise_ = false;
  state_ = State::kBetweenCalls;
  if (!wrapped_ && found.markup == kCallEnd) CloseBlock();
  return true;
}

bool ReplyParser::StepParameterHeader() {
  Attributes attributes;
  const Reading reading = ReadAttributes(Waiting(), attributes);
  if (reading == Reading::kNeedsMore && !final_) return false;
  const auto name = attributes.values.find("name");
  const auto string = attributes.values.find("string");
  value_.clear();
  state_ = State::kValue;
  if (reading != Reading::kDone || name == attributes.values.end()) {
    Warn("dropped a parameter without a name");
    value_kind_ = ValueKind::kDiscarded;
    return true;
  }
  Record(attributes.length);
  const std::string key = ReplaceIllFormed(name->second);
  if (std::find(keys_.begin(), keys_.end(), key) != keys_.end()) {
    Warn(fmt::format("dropped a second parameter {}", DumpPythonString(key)));
    value_kind_ = ValueKind::kDiscarded;
    return true;
  }
  const bool known =
      string != attributes.values.end() && (string->second == "true" || string->second == "false");
  if (!known) Warn(fmt::format("took the parameter {} for a string", DumpPythonString(key)));
  value_kind_ = known && string->second == "false" ? ValueKind::kJson : ValueKind::kString;
  EmitArguments(keys_.empty() ? "{" : ", ");
  EmitArguments(DumpPythonString(key) + ": ");
  if (value_kind_ == ValueKind::kString) EmitArguments("\"");
  keys_.push_back(key);
  return true;
}

bool ReplyParser::StepValue() {
  const Found found = FindMarkup(Waiting(), std::array{kParameterEnd});
  const bool ended = !found.markup.empty();
  const size_t length = final_ && !ended ? Waiting().size() : found.place;
  const std::string_view bytes = Waiting().substr(0, length);
  if (value_kind_ == ValueKind::kString) EmitArguments(EscapePythonString(text_.Push(bytes)));
  if (value_kind_ == ValueKind::kJson) value_ += bytes;
  Record(length);
  if (!ended) return false;
  RecordTag(kParameterEnd.size());
  EndValue();
  warned_noise_ = false;
  state_ = State::kBetweenParameters;
  return true;
}

void ReplyParser::EndValue() {
  if (value_kind_ == ValueKind::kString) {
    EmitArguments(EscapePythonString(text_.Finish()) + "\"");
  } else if (value_kind_ == ValueKind::kJson && TryParsePythonJson(value_)) {
    EmitArguments(value_);
  } else if (value_kind_ == ValueKind::kJson) {
    Warn(fmt::format("the value of {} is no JSON; took it for a string",
                     DumpPythonString(keys_.back())));
    EmitArguments(DumpPythonString(ReplaceIllFormed(value_)));
  }
}

void ReplyParser::BeginCall(std::string_view name) {
  keys_.clear();
  calls_.push_back({ReplaceIllFormed(name), "", true, {}});
  events_->push_back({ReplyEvent::Kind::kCallBegin, calls_.back().name, calls_.size() - 1, true});
}

void ReplyParser::EndCall(bool complete) {
  ParsedCall& call = calls_.back();
  EmitArguments(keys_.empty() ? "{}" : "}");
  call.complete = complete;
  if (complete) call.sampled = recorded_.segments();
  recorded_ = Prompt();
  events_->push_back({ReplyEvent::Kind::kCallEnd, "", calls_.size() - 1, complete});
}

/// What the end of the bytes leaves open.
void ReplyParser::FinishInside() {
  switch (state_) {
    case State::kText:
      Add(in_reasoning_ ? ReplyEvent::Kind::kReasoning : ReplyEvent::Kind::kContent,
          text_.Finish());
      if (in_reasoning_ && end_ == ReplyEnd::kStop) Warn("the reply ended inside the reasoning");
      return;
    case State::kValue:
      EndValue();
      Warn("the reply ended inside a tool call");
      EndCall(false);
      return;
    case State::kBetweenParameters:
      // The model may well have meant all of it when it stopped by itself.
      Warn("the reply ended inside a tool call");
      EndCall(end_ == ReplyEnd::kStop);
      return;
    case State::kBetweenCalls:
      Warn("a block of tool calls without its end");
      CloseBlock();
      return;
    case State::kSkippedCall:
      CloseBlock();
      return;
    case State::kCallHeader:  // these are always decided at the end
    case State::kParameterHeader:
    case State::kAfterBlock:
    case State::kEnded:
      return;
  }
}

// --- output

/// The first `length` waiting bytes are reasoning or content.
void ReplyParser::EmitText(size_t length) {
  if (length == 0) return;
  // Where something was taken out, the parts beside it must not make new markup.
  std::string& tail = in_reasoning_ ? reasoning_tail_ : content_tail_;
  std::string text;
  if (std::exchange(gap_, false) && EndsInMarkup(tail)) {
    text = text_.Push(kReplacement);
    tail += kReplacement;
  }
  const std::string_view bytes = Waiting().substr(0, length);
  text += text_.Push(bytes);
  tail += bytes;
  if (tail.size() > kLongestMarkup) tail.erase(0, tail.size() - kLongestMarkup);
  Drop(length);
  if (!in_reasoning_ && WhiteSpace(text) < text.size()) content_begun_ = true;
  Add(in_reasoning_ ? ReplyEvent::Kind::kReasoning : ReplyEvent::Kind::kContent, text);
}

void ReplyParser::EmitArguments(std::string_view text) {
  calls_.back().arguments += text;
  Add(ReplyEvent::Kind::kArguments, text);
}

void ReplyParser::Warn(std::string text) {
  events_->push_back({ReplyEvent::Kind::kWarning, std::move(text), 0, true});
}

/// Adds a delta, to the last event if that is of the same kind.
void ReplyParser::Add(ReplyEvent::Kind kind, std::string_view text) {
  if (text.empty()) return;
  const size_t call = kind == ReplyEvent::Kind::kArguments ? calls_.size() - 1 : 0;
  if (!events_->empty() && events_->back().kind == kind && events_->back().call == call) {
    events_->back().text += text;
  } else {
    events_->push_back({kind, std::string(text), call, true});
  }
}

// --- the record of what was sampled

void ReplyParser::Record(size_t length) {
  recorded_.AddText(Waiting().substr(0, length));
  Drop(length);
}

/// Bytes that hold one structural tag: its ｜DSML｜ is the control token.
void ReplyParser::RecordTag(size_t length) {
  const std::string_view bytes = Waiting().substr(0, length);
  const size_t token = bytes.find(kDsmlToken);
  recorded_.AddText(bytes.substr(0, token));
  recorded_.AddControl(kDsmlToken);
  recorded_.AddText(bytes.substr(token + kDsmlToken.size()));
  Drop(length);
}

/// An end tag and the '>' behind it; false if that may still come.
bool ReplyParser::RecordTagEnd(std::string_view tag) {
  if (Waiting().size() == tag.size() && !final_) return false;
  RecordTag(tag.size() + (Waiting().size() > tag.size() && Waiting()[tag.size()] == '>' ? 1 : 0));
  return true;
}

/// Bytes between tags, where only '>' and white space are in place.
void ReplyParser::RecordNoise(size_t length) {
  const std::string_view bytes = Waiting().substr(0, length);
  const bool in_place =
      std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == '>' || IsWhiteSpace(c); });
  if (!in_place && !std::exchange(warned_noise_, true))
    Warn("dropped text between the tags of tool calls");
  Record(length);
}

}  // namespace toaster
