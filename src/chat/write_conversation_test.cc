#include "chat/write_conversation.h"

#include <gmock/gmock.h>

#include "chat/prompt_texts.h"
#include "chat/render_prompt.h"

namespace toaster {
namespace {

constexpr std::string_view kEverything = R"({"messages": [
  {"role": "system", "content": "Be \"brief\".\n", "response_format": {"n": 123456789012345678901}},
  {"role": "user", "content": "Grüße\u0001"},
  {"role": "assistant", "content": "", "reasoning_content": "look", "tool_calls":
    [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1.50}"}}]},
  {"role": "tool", "content": "42", "tool_call_id": "a"},
  {"role": "latest_reminder", "content": "today"},
  {"role": "developer", "content": "more"},
  {"role": "user", "content": "?", "task": "query"},
  {"role": "assistant", "content": "so", "prefix": true}],
  "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}],
  "thinking": true, "reasoning_effort": "max", "keep_reasoning": true})";

TEST(WriteConversation, ReadsBackAsTheSame) {
  const Conversation before = ParseConversation(ParsePythonJson(kEverything, "test"));
  const std::string written = WriteConversation(before);
  const Conversation after = ParseConversation(ParsePythonJson(written, "written"));
  EXPECT_EQ(WriteConversation(after), written);
  EXPECT_TRUE(after.thinking);
  EXPECT_TRUE(after.keep_reasoning);
  EXPECT_EQ(after.effort, Effort::kMax);
  const PromptTexts texts = PromptTexts::FromJson(
      R"({"effort": {"max": "M"}, "tools_before": "T", "tools_after": "U",
          "response_format_before": "R"})",
      "test");
  EXPECT_EQ(RenderPrompt(after, texts).segments(), RenderPrompt(before, texts).segments());
  EXPECT_EQ(after.messages[6].task, Task::kQuery);
}

TEST(WriteConversation, WritesAnEmptyOne) {
  const Conversation after = ParseConversation(ParsePythonJson(WriteConversation({}), "written"));
  EXPECT_TRUE(after.messages.empty());
  EXPECT_FALSE(after.thinking);
}

}  // namespace
}  // namespace toaster
