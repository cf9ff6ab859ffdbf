#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/conversation.h"

namespace toaster {

/// How an answer is judged.
enum class Check {
  kCalculator,  ///< the tool was called with the wanted expression and its result is in the answer
  kJson,        ///< the answer is JSON and equals the wanted value
  kPasskey,     ///< the first number in the answer is the wanted one
  kText,        ///< the answer is the wanted text, white space at both ends aside
};
std::string_view CheckName(Check check);

/// A conversation that the model is to continue, and what has to come.
struct EvaluationCase {
  Conversation conversation;
  Check check = Check::kText;
  std::string group;  ///< cases of one name are counted together; the check's name if none is given
  std::string expression;  ///< kCalculator
  std::string answer;      ///< all but kJson; of kCalculator the result
  std::string value;       ///< kJson: as JSON text
};

/// Reads lines of a chat request (see ParseConversation()) with a `check`, for example
/// {"kind": "calculator", "expression": "12*7"}, {"kind": "json", "value": {...}},
/// {"kind": "passkey", "answer": "48213"} or {"kind": "text", "answer": "Yes."}, and, if wanted, a
/// `group`. Throws Error(kInvalidArgument) naming `origin` and the line.
std::vector<EvaluationCase> ParseEvaluationCases(std::string_view json_lines,
                                                 const std::string& origin);

/// Lets the model answer: the assistant's next message.
using ReplyFunction = std::function<Message(const Conversation& conversation)>;

struct CaseOutcome {
  bool right = false;
  bool called = false;           ///< kCalculator: the wanted call was made
  bool is_json = false;          ///< kJson
  std::vector<Message> replies;  ///< and the tool's answers between them
};

/// Asks for a reply and, as long as it calls tools, answers the calls and asks again, kMostRounds
/// times at most. The one tool there is is "calculator" with the parameter "expression".
CaseOutcome RunCase(const EvaluationCase& evaluation_case, const ReplyFunction& reply);
constexpr int kMostRounds = 4;

/// The first number in `text`: a run of digits. Nothing if there is none.
std::optional<std::string> FirstNumber(std::string_view text);
/// Whether `number`, a whole number, occurs in `text` and not as a part of another.
bool HasNumber(std::string_view text, std::string_view number);

}  // namespace toaster
