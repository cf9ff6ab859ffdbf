#include "evaluation/cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace toaster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

EvaluationCase CaseOf(const std::string& check) {
  return ParseEvaluationCases(
      R"({"messages": [{"role": "user", "content": "?"}], "check": )" + check + "}", "test")[0];
}

Message Answer(std::string content, std::vector<std::string> expressions = {}) {
  Message message;
  message.role = Role::kAssistant;
  message.content = std::move(content);
  for (const std::string& expression : expressions)
    message.tool_calls.push_back(
        {"call", "calculator", R"({"expression": ")" + expression + "\"}", {}});
  return message;
}

/// Replies in turn; keeps what the tool said before each.
class Script {
 public:
  explicit Script(std::vector<Message> replies) : replies_(std::move(replies)) {}
  ReplyFunction Function() {
    return [this](const Conversation& conversation) {
      heard_.push_back(conversation.messages.back().content);
      return replies_.at(next_++ % replies_.size());
    };
  }
  const std::vector<std::string>& heard() const { return heard_; }

 private:
  std::vector<Message> replies_;
  std::vector<std::string> heard_;
  size_t next_ = 0;
};

TEST(CasesTest, TheCalculatorIsCalledAndItsResultUsed) {
  const EvaluationCase wanted = CaseOf(R"({"kind": "calculator", "expression": "12*7"})");
  Script script({Answer("", {"12 * 7"}), Answer("It is 84.")});
  const CaseOutcome outcome = RunCase(wanted, script.Function());
  EXPECT_TRUE(outcome.right);
  EXPECT_TRUE(outcome.called);
  EXPECT_THAT(script.heard(), ElementsAre("?", "84"));
  ASSERT_EQ(outcome.replies.size(), 3u);
  EXPECT_EQ(outcome.replies[1].role, Role::kTool);
}

TEST(CasesTest, ACalculationIsWrongWithoutCallOrUse) {
  const EvaluationCase wanted = CaseOf(R"({"kind": "calculator", "expression": "12*7"})");
  const auto outcome = [&](std::vector<Message> replies) {
    return RunCase(wanted, Script(std::move(replies)).Function());
  };
  EXPECT_FALSE(outcome({Answer("84")}).right);                        // known by heart
  EXPECT_FALSE(outcome({Answer("", {"12*7"}), Answer("48")}).right);  // the result is not used
  EXPECT_TRUE(outcome({Answer("", {"12*7"}), Answer("48")}).called);
  EXPECT_FALSE(outcome({Answer("", {"12*7"}), Answer("184")}).right);
  EXPECT_FALSE(outcome({Answer("", {"7*12"}), Answer("84")}).right);  // another call
  EXPECT_FALSE(outcome({Answer("", {"12*7"})}).right);                // calls for ever
  EXPECT_EQ(outcome({Answer("", {"12*7"})}).replies.size(), 2u * kMostRounds);
  EXPECT_TRUE(outcome({Answer("", {"12+"}), Answer("", {"12*7"}), Answer("84")}).right);
}

TEST(CasesTest, StrangeCallsGetAnAnswer) {
  const EvaluationCase wanted = CaseOf(R"({"kind": "calculator", "expression": "1+1"})");
  Message strange = Answer("");
  strange.tool_calls = {{"a", "weather", "{}", {}},
                        {"b", "calculator", "no JSON", {}},
                        {"c", "calculator", R"({"expression": 3})", {}},
                        {"d", "calculator", R"({"expression": "1/0"})", {}}};
  const CaseOutcome outcome = RunCase(wanted, Script({strange, Answer("2")}).Function());
  EXPECT_FALSE(outcome.called);
  ASSERT_EQ(outcome.replies.size(), 6u);
  for (size_t i = 1; i < 4; ++i)
    EXPECT_THAT(outcome.replies[i].content, HasSubstr("error: the only tool is calculator"));
  EXPECT_EQ(outcome.replies[4].content, "error: division by zero");
  EXPECT_EQ(outcome.replies[4].tool_call_id, "d");
}

TEST(CasesTest, Json) {
  const EvaluationCase wanted =
      CaseOf(R"({"kind": "json", "value": {"name": "Ada", "age": 36, "tags": ["x", null]}})");
  const auto outcome = [&](const std::string& answer) {
    return RunCase(wanted, Script({Answer(answer)}).Function());
  };
  EXPECT_TRUE(outcome("\n{\"age\":36,\"tags\":[\"x\",null],\"name\":\"Ada\"} ").right);
  EXPECT_FALSE(outcome(R"({"name": "Ada", "age": 37, "tags": ["x", null]})").right);
  EXPECT_TRUE(outcome(R"({"name": "Ada", "age": 37, "tags": ["x", null]})").is_json);
  EXPECT_TRUE(outcome("[]").is_json);
  EXPECT_FALSE(outcome("Here: {\"name\": 3}").is_json);
  EXPECT_FALSE(outcome(R"({"name": "Ada", "age": 36, "tags": ["x", null])").is_json);
}

TEST(CasesTest, PasskeysAndTexts) {
  const auto right = [](const std::string& check, const std::string& answer) {
    return RunCase(CaseOf(check), Script({Answer(answer)}).Function()).right;
  };
  const std::string passkey = R"({"kind": "passkey", "answer": "48213"})";
  EXPECT_TRUE(right(passkey, "The pass key is 48213."));
  EXPECT_FALSE(right(passkey, "The pass key is 482135."));
  EXPECT_FALSE(right(passkey, "12345 or 48213"));
  EXPECT_FALSE(right(passkey, "I do not know."));
  const std::string text = R"({"kind": "text", "answer": "Yes."})";
  EXPECT_TRUE(right(text, " Yes.\n"));
  EXPECT_FALSE(right(text, "Yes"));
}

TEST(CasesTest, Numbers) {
  EXPECT_TRUE(HasNumber("184, 84!", "84"));
  EXPECT_FALSE(HasNumber("184 848 -84", "84"));
  EXPECT_TRUE(HasNumber("= -84", "-84"));
  EXPECT_EQ(FirstNumber("a 007 b 8"), "007");
  EXPECT_EQ(FirstNumber("none"), std::nullopt);
}

TEST(CasesTest, FilesAreReadStrictly) {
  const auto cases = ParseEvaluationCases(
      "{\"messages\": [], \"thinking\": true, \"group\": \"g\", \"check\": {\"kind\": \"text\", "
      "\"answer\": \"a\"}}\n\n{\"messages\": [], \"check\": {\"kind\": \"calculator\", "
      "\"expression\": \"2+2\"}}\n",
      "test");
  ASSERT_EQ(cases.size(), 2u);
  EXPECT_EQ(cases[0].group, "g");
  EXPECT_TRUE(cases[0].conversation.thinking);
  EXPECT_EQ(cases[1].group, "calculator");
  EXPECT_EQ(cases[1].answer, "4");
  const auto message = [](const std::string& line) -> std::string {
    try {
      ParseEvaluationCases("\n" + line, "file");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto with = [](const std::string& check) {
    return "{\"messages\": [], \"check\": " + check + "}";
  };
  EXPECT_THAT(message("[]"), HasSubstr("file:2: has to be a JSON object"));
  EXPECT_THAT(message("{\"check\": {}}"), HasSubstr("file:2: messages: is missing"));
  EXPECT_THAT(message("{\"messages\": []}"), HasSubstr("file:2: check: is missing"));
  EXPECT_THAT(message(with("{}")), HasSubstr("check.kind: is missing"));
  EXPECT_THAT(message(with("{\"kind\": \"taste\"}")), HasSubstr("has to be calculator, json"));
  EXPECT_THAT(message(with("{\"kind\": \"text\"}")), HasSubstr("check.answer: is missing"));
  EXPECT_THAT(message(with("{\"kind\": \"json\"}")), HasSubstr("check.value: is missing"));
  EXPECT_THAT(message(with("{\"kind\": \"calculator\", \"expression\": \"1/0\"}")),
              HasSubstr("check.expression: error: division by zero"));
}

}  // namespace
}  // namespace toaster
