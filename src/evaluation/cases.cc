#include "evaluation/cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/json.h"
#include "chat/json_lines.h"
#include "evaluation/calculator.h"

namespace toaster {
namespace {

constexpr std::array kCheckNames = {
    std::pair(Check::kCalculator, "calculator"), std::pair(Check::kJson, "json"),
    std::pair(Check::kPasskey, "passkey"), std::pair(Check::kText, "text")};
constexpr std::string_view kCalculatorName = "calculator";
constexpr std::string_view kWhiteSpace = " \t\r\n";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

std::string_view Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == text.npos) return "";
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) - begin + 1);
}

std::string WithoutBlanks(std::string text) {
  std::erase(text, ' ');
  return text;
}

const std::string& RequireText(const JsonValue& object, const char* name) {
  const JsonValue* value = object.Find(name);
  if (!value || !value->is_string()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("check.{}: is missing or no string", name));
  }
  return value->text;
}

Check ParseCheck(const std::string& name) {
  for (const auto& [check, known] : kCheckNames) {
    if (name == known) return check;
  }
  throw Error(ErrorCode::kInvalidArgument,
              "check.kind: has to be calculator, json, passkey or text");
}

EvaluationCase ParseCase(const JsonValue& line) {
  EvaluationCase result;
  result.conversation = ParseConversation(line);
  const JsonValue* check = line.Find("check");
  if (!check || !check->is_object())
    throw Error(ErrorCode::kInvalidArgument, "check: is missing or no object");
  result.check = ParseCheck(RequireText(*check, "kind"));
  result.group = CheckName(result.check);
  if (const JsonValue* group = line.Find("group"); group && group->is_string())
    result.group = group->text;
  if (result.check == Check::kJson) {
    const JsonValue* value = check->Find("value");
    if (!value) throw Error(ErrorCode::kInvalidArgument, "check.value: is missing");
    result.value = DumpPythonJson(*value);
    ParseJson(result.value, "check.value");  // an answer is read the same way, which is stricter
  } else if (result.check == Check::kCalculator) {
    result.expression = RequireText(*check, "expression");
    result.answer = Calculate(result.expression);
    if (result.answer.starts_with("error"))
      throw Error(ErrorCode::kInvalidArgument, "check.expression: " + result.answer);
  } else {
    result.answer = RequireText(*check, "answer");
  }
  return result;
}

/// The expression of a call of the calculator; nothing if it is another call.
std::optional<std::string> ExpressionOf(const ToolCall& call) {
  if (call.name != kCalculatorName) return std::nullopt;
  const std::optional<JsonValue> arguments = TryParsePythonJson(call.arguments);
  if (!arguments || !arguments->is_object() || arguments->keys.size() != 1) return std::nullopt;
  const JsonValue* expression = arguments->Find("expression");
  if (!expression || !expression->is_string()) return std::nullopt;
  return expression->text;
}

Message ToolAnswer(const ToolCall& call) {
  Message message;
  message.role = Role::kTool;
  message.tool_call_id = call.id;
  const std::optional<std::string> expression = ExpressionOf(call);
  message.content = expression ? Calculate(*expression)
                               : "error: the only tool is calculator, with one expression";
  return message;
}

void Judge(const EvaluationCase& wanted, const Message& answer, CaseOutcome& outcome) {
  const std::string_view content = Trimmed(answer.content);
  switch (wanted.check) {
    case Check::kCalculator:
      outcome.right = outcome.called && HasNumber(content, wanted.answer);
      return;
    case Check::kJson:
      try {
        outcome.right = ParseJson(content, "the answer") == ParseJson(wanted.value, "check.value");
        outcome.is_json = true;
      } catch (const Error&) {
        // Then it is none: an outcome like any other.
      }
      return;
    case Check::kPasskey:
      outcome.right = FirstNumber(content) == wanted.answer;
      return;
    case Check::kText:
      outcome.right = content == Trimmed(wanted.answer);
      return;
  }
}

}  // namespace

std::string_view CheckName(Check check) {
  return std::find_if(kCheckNames.begin(), kCheckNames.end(),
                      [&](const auto& entry) { return entry.first == check; })
      ->second;
}

std::vector<EvaluationCase> ParseEvaluationCases(std::string_view json_lines,
                                                 const std::string& origin) {
  std::vector<EvaluationCase> cases;
  ForEachJsonLine(json_lines, origin,
                  [&](const JsonValue& line) { cases.push_back(ParseCase(line)); });
  return cases;
}

CaseOutcome RunCase(const EvaluationCase& evaluation_case, const ReplyFunction& reply) {
  CaseOutcome outcome;
  Conversation conversation = evaluation_case.conversation;
  const auto add = [&](Message message) {
    outcome.replies.push_back(message);
    conversation.messages.push_back(std::move(message));
  };
  for (int round = 0; round < kMostRounds; ++round) {
    add(reply(conversation));
    const std::vector<ToolCall> calls = conversation.messages.back().tool_calls;
    if (calls.empty()) {
      Judge(evaluation_case, conversation.messages.back(), outcome);
      return outcome;
    }
    for (const ToolCall& call : calls) {
      const std::optional<std::string> expression = ExpressionOf(call);
      outcome.called |=
          expression && WithoutBlanks(*expression) == WithoutBlanks(evaluation_case.expression);
      add(ToolAnswer(call));
    }
  }
  return outcome;  // it never came to an answer
}

std::optional<std::string> FirstNumber(std::string_view text) {
  const auto begin = std::find_if(text.begin(), text.end(), IsDigit);
  if (begin == text.end()) return std::nullopt;
  return std::string(begin, std::find_if_not(begin, text.end(), IsDigit));
}

bool HasNumber(std::string_view text, std::string_view number) {
  for (size_t place = text.find(number); place != text.npos; place = text.find(number, place + 1)) {
    const size_t end = place + number.size();
    const bool begins = place == 0 || (!IsDigit(text[place - 1]) && text[place - 1] != '-');
    const bool ends = end == text.size() || !IsDigit(text[end]);
    if (begins && ends) return true;
  }
  return false;
}

}  // namespace toaster
