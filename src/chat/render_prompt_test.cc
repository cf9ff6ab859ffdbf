#include "chat/render_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

#include "base/error.h"
#include "chat/parse_reply.h"
#include "chat/sampled_calls.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;

const std::string kFolder = TOASTER_SOURCE_DIR "/tests/data/chat/";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

PromptTexts Texts(const std::string& file) {
  return PromptTexts::FromEncoder(ReadFile(kFolder + file), file);
}

struct Case {
  std::string name;
  std::string texts;
  Conversation conversation;
  std::vector<PromptSegment> prompt;  ///< what it has to become
};

std::vector<Case> LoadCases() {
  std::vector<Case> cases;
  for (const JsonValue& json :
       ParsePythonJson(ReadFile(kFolder + "conversations.json"), "cases").items) {
    Case& added = cases.emplace_back();
    added.name = json.Find("name")->text;
    added.texts = json.Find("texts")->text;
    added.conversation = ParseConversation(*json.Find("request"));
    for (const JsonValue& piece : json.Find("prompt")->items)
      added.prompt.push_back(piece.is_array() ? PromptSegment{true, piece.items[0].text}
                                              : PromptSegment{false, piece.text});
  }
  return cases;
}

std::string Show(const std::vector<PromptSegment>& segments) {
  std::string text;
  for (const PromptSegment& segment : segments)
    text += segment.control ? "[" + segment.text + "]" : segment.text;
  return text;
}

TEST(RenderPromptTest, ConversationsBecomeTheirPrompts) {
  const std::vector<Case> cases = LoadCases();
  ASSERT_GE(cases.size(), 72u);
  for (const Case& test : cases) {
    const Prompt prompt = RenderPrompt(test.conversation, Texts(test.texts));
    EXPECT_EQ(prompt.segments(), test.prompt)
        << test.name << "\nis:       " << Show(prompt.segments())
        << "\nexpected: " << Show(test.prompt);
  }
}

TEST(RenderPromptTest, OnlyTheEncoderWritesControlTokens) {
  const Tokenizer tokenizer = Tokenizer::Load(TOASTER_SOURCE_DIR "/tests/data/tokenizer");
  // Every control token there is, as text, in every place text can come from.
  std::string forgery;
  size_t tokens = 0;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.IsControlToken(id)) continue;
    forgery += tokenizer.TokenBytes(id);
    ++tokens;
  }
  ASSERT_EQ(tokens, 19u);
  const auto conversation = [](const std::string& text) {
    const std::string quoted = DumpPythonString(text);
    std::string json = R"({"thinking": true, "tools": [{"function": {"name": @, "x": {@: @}}}],
        "messages": [{"role": "system", "content": @}, {"role": "user", "content": @},
        {"role": "assistant", "content": @, "reasoning_content": @, "tool_calls":
          [{"id": "a", "function": {"name": @, "arguments": "{\"k\": \"v\"}"}},
           {"id": "b", "function": {"name": "f", "arguments": @}}]},
        {"role": "tool", "tool_call_id": "a", "content": @}, {"role": "user", "content": @},
        {"role": "latest_reminder", "content": @}, {"role": "developer", "content": @}]})";
    for (size_t at = json.find('@'); at != json.npos; at = json.find('@', at + quoted.size()))
      json.replace(at, 1, quoted);
    return ParseConversation(ParsePythonJson(json, "test"));
  };
  const PromptTexts texts = Texts("encoding_preview.py");
  const auto control_tokens = [&](const std::string& text) {
    std::vector<int32_t> control;
    for (const int32_t id :
         EncodePrompt(RenderPrompt(conversation(text), texts), tokenizer).tokens) {
      if (tokenizer.IsControlToken(id)) control.push_back(id);
    }
    return control;
  };
  EXPECT_EQ(control_tokens(forgery), control_tokens("harmless"));
  const Prompt prompt = RenderPrompt(conversation(forgery), texts);
  EXPECT_EQ(tokenizer.Decode(EncodePrompt(prompt, tokenizer).tokens), prompt.Text());
}

// --- what the next turn begins with

/// A conversation a turn later: the model answers, and something follows.
struct NextTurn {
  const char* name;
  std::vector<Message> added;
  bool user = true;  ///< the added messages hold a user turn
};

Message Of(Role role, const std::string& content) {
  Message message;
  message.role = role;
  message.content = content;
  return message;
}

std::vector<NextTurn> NextTurns() {
  Message answer = Of(Role::kAssistant, "An answer.");
  answer.reasoning = "Thoughts.";
  Message calls = Of(Role::kAssistant, "");
  calls.reasoning = "I need a tool.";
  calls.tool_calls = {{"n1", "f", R"({"a":1})", {}}};
  Message result = Of(Role::kTool, "42");
  result.tool_call_id = "n1";
  return {{"answer", {answer}, false},
          {"answer and question", {answer, Of(Role::kUser, "Next?")}, true},
          {"call", {calls}, false},
          {"call and result", {calls, result}, true},
          {"answer, reminder, question",
           {answer, Of(Role::kLatestReminder, "now"), Of(Role::kUser, "Next?")},
           true}};
}

/// Where the task of the last turn stands: on the last message, or on one that results joined.
/// The number of messages if there is none.
size_t TaskOfLastTurn(const std::vector<Message>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].task) return i;
    if (messages[i].role != Role::kTool) break;
  }
  return messages.size();
}

/// The conversation with the turn added; a prefix that was to be completed becomes part of the
/// answer, and a task stays or goes.
Conversation After(const Conversation& conversation, const NextTurn& turn, bool keep_task) {
  Conversation next = conversation;
  std::vector<Message> added = turn.added;
  if (!next.messages.empty() && next.messages.back().without_eos) {
    added[0].content = next.messages.back().content + added[0].content;
    added[0].reasoning = next.messages.back().reasoning;
    next.messages.pop_back();
  } else if (!keep_task) {
    next.messages[TaskOfLastTurn(next.messages)].task.reset();
  }
  next.messages.insert(next.messages.end(), added.begin(), added.end());
  return next;
}

size_t CommonPrefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const size_t length = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(length), b.begin()).first -
      a.begin());
}

TEST(RenderPromptTest, TheNextTurnBeginsWithTheStablePrefix) {
  const Tokenizer tokenizer = Tokenizer::Load(TOASTER_SOURCE_DIR "/tests/data/tokenizer");
  std::map<std::string, int> count;
  for (const Case& test : LoadCases()) {
    const PromptTexts texts = Texts(test.texts);
    const PromptTokens now = EncodePrompt(RenderPrompt(test.conversation, texts), tokenizer);
    const std::vector<Message>& messages = test.conversation.messages;
    // A turn can follow only where the model was to speak.
    if (messages.empty() || (messages.back().role == Role::kAssistant &&
                             !messages.back().without_eos && !messages.back().task)) {
      continue;
    }
    const bool tools = std::any_of(messages.begin(), messages.end(),
                                   [](const Message& message) { return !message.tools.empty(); });
    const bool dropping = test.conversation.thinking && !tools && !test.conversation.keep_reasoning;
    const bool task = TaskOfLastTurn(messages) < messages.size();
    const bool prefix = messages.back().without_eos;
    size_t shortest = now.tokens.size();
    for (const NextTurn& turn : NextTurns()) {
      for (const bool keep_task : {true, false}) {
        if (!task && !keep_task) continue;
        // An answer to a task has no reasoning; a prefix's reasoning is given.
        const Conversation later = After(test.conversation, turn, keep_task);
        const PromptTokens next = EncodePrompt(RenderPrompt(later, texts), tokenizer);
        const size_t common = CommonPrefix(now.tokens, next.tokens);
        EXPECT_GE(common, now.stable) << test.name << ", " << turn.name;
        shortest = std::min(shortest, common);
        ++count["turns"];
        if (common == now.tokens.size()) {
          ++count["extended"];
        } else {
          // The documented exceptions.
          EXPECT_TRUE((dropping && turn.user) || (task && !keep_task) || prefix)
              << test.name << ", " << turn.name;
          ++count[task && !keep_task ? "task left out" : prefix ? "prefix" : "dropping"];
        }
      }
    }
    // Promised is all that can be: the mark is where some next turn differs, except that the end of
    // a text to be completed is not counted, although it may happen to stay.
    if (!prefix) {
      EXPECT_EQ(shortest, now.stable) << test.name;
    }
    if (!dropping && !task && !prefix) {
      EXPECT_EQ(now.stable, now.tokens.size()) << test.name;
    }
  }
  std::string counts;
  for (const auto& [name, number] : count) counts += name + ": " + std::to_string(number) + "  ";
  RecordProperty("counts", counts);
  std::cout << counts << "\n";
  EXPECT_GE(count["turns"], 300);
  EXPECT_GE(count["extended"], count["turns"] / 2);
}

/// What the model may say next, and the message that a client makes of it and sends back.
struct SampledReply {
  std::vector<PromptSegment> segments;
  Message message;
};

SampledReply Sample(const std::string& text, bool thinking, SampledCalls& kept) {
  SampledReply reply;
  ReplyParser parser(thinking);
  std::vector<ReplyEvent> events;
  parser.Push(text, events);
  parser.Finish(ReplyEnd::kStop, events);
  reply.message.role = Role::kAssistant;
  for (const ReplyEvent& event : events) {
    if (event.kind == ReplyEvent::Kind::kReasoning) reply.message.reasoning += event.text;
    if (event.kind == ReplyEvent::Kind::kContent) reply.message.content += event.text;
  }
  std::vector<std::string> ids;
  for (const ParsedCall& call : parser.calls()) {
    ids.push_back("sampled" + std::to_string(ids.size()));
    reply.message.tool_calls.push_back({ids.back(), call.name, call.arguments, {}});
  }
  kept.Keep(ids, parser.calls());
  Prompt sampled;
  sampled.AddTrusted(text);  // the model's ｜DSML｜ and </think> are control tokens
  sampled.AddControl(kEosToken);
  reply.segments = sampled.segments();
  return reply;
}

// The cache holds the prompt and the reply; the next prompt begins with both wherever earlier turns
// are rendered as they were.
TEST(RenderPromptTest, TheNextTurnBeginsWithPromptAndReply) {
  const Tokenizer tokenizer = Tokenizer::Load(TOASTER_SOURCE_DIR "/tests/data/tokenizer");
  const std::string call =
      "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
      "<｜DSML｜parameter name=\"a\" string=\"false\">{\"x\":1e2}</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke></｜DSML｜tool_calls>";
  std::map<std::string, int> count;
  for (const Case& test : LoadCases()) {
    const std::vector<Message>& messages = test.conversation.messages;
    if (messages.empty() || messages.back().role == Role::kAssistant ||
        messages.back().role == Role::kSystem || TaskOfLastTurn(messages) < messages.size()) {
      continue;
    }
    const PromptTexts texts = Texts(test.texts);
    Prompt now = RenderPrompt(test.conversation, texts);
    const bool keeping = now.stable_segments() == now.segments().size();
    const std::string thoughts = test.conversation.thinking ? "Hm.\n\n</think>" : "";
    for (const std::string& text :
         {thoughts + "It is 5.", thoughts + call, thoughts + "So:" + call}) {
      SampledCalls kept;
      const SampledReply reply = Sample(text, test.conversation.thinking, kept);
      Conversation next = test.conversation;
      next.messages.push_back(reply.message);
      for (const ToolCall& made : reply.message.tool_calls) {
        next.messages.push_back(Of(Role::kTool, "result"));
        next.messages.back().tool_call_id = made.id;
      }
      next.messages.push_back(Of(Role::kUser, "Next?"));
      kept.Restore(next.messages);
      Prompt cached = now;
      cached.Add(reply.segments);
      const PromptTokens before = EncodePrompt(cached, tokenizer);
      const PromptTokens after = EncodePrompt(RenderPrompt(next, texts), tokenizer);
      const bool extends = CommonPrefix(before.tokens, after.tokens) == before.tokens.size();
      EXPECT_EQ(extends, keeping) << test.name << "\n" << text;
      ++count[extends ? "extended" : "dropping"];
    }
  }
  std::cout << "extended: " << count["extended"] << "  dropping: " << count["dropping"] << "\n";
  EXPECT_GE(count["extended"], 150);
}

TEST(RenderPromptTest, SampledCallsAreRepeatedByteForByte) {
  const PromptTexts texts = Texts("encoding_preview.py");
  const std::string sampled =
      "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n\n"
      "<｜DSML｜parameter name=\"a\" string=\"false\">[1,2]</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"b\" string=\"false\">oops</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  ReplyParser parser(true);
  std::vector<ReplyEvent> events;
  parser.Push("hm</think>Let me see." + sampled, events);
  parser.Finish(ReplyEnd::kStop, events);
  ASSERT_EQ(parser.calls().size(), 2u);
  SampledCalls kept;
  kept.Keep({"id1", "id2"}, parser.calls());

  Conversation conversation;
  conversation.thinking = true;
  conversation.keep_reasoning = true;
  conversation.messages = {Of(Role::kUser, "go"), Of(Role::kAssistant, "Let me see.")};
  Message& answer = conversation.messages.back();
  answer.reasoning = "hm";
  const Prompt before =
      RenderPrompt({{conversation.messages[0]}, true, Effort::kNone, true}, texts);
  for (size_t i = 0; i < 2; ++i) {
    const ParsedCall& call = parser.calls()[i];
    answer.tool_calls.push_back({i == 0 ? "id1" : "id2", call.name, call.arguments, {}});
  }
  const std::string expected =
      before.Text() + "hm</think>Let me see." + sampled + std::string(kEosToken);
  EXPECT_NE(RenderPrompt(conversation, texts).Text(), expected);
  kept.Restore(conversation.messages);
  EXPECT_EQ(RenderPrompt(conversation, texts).Text(), expected);

  // Only what came from the model is repeated.
  const auto restored = [&](auto change) {
    std::vector<Message> messages = conversation.messages;
    for (ToolCall& call : messages[1].tool_calls) call.sampled.clear();
    change(messages[1].tool_calls);
    kept.Restore(messages);
    return !messages[1].tool_calls.empty() && !messages[1].tool_calls[0].sampled.empty();
  };
  EXPECT_TRUE(restored([](auto&) {}));
  EXPECT_TRUE(restored([](auto& calls) { calls[1].arguments = "{ }"; })) << "the same JSON";
  EXPECT_FALSE(restored([](auto& calls) { calls[1].arguments = R"({"a": 1})"; }));
  EXPECT_FALSE(restored([](auto& calls) { calls[0].name = "h"; }));
  EXPECT_FALSE(restored([](auto& calls) { calls.pop_back(); }));
  EXPECT_FALSE(restored([](auto& calls) { std::swap(calls[0], calls[1]); }));
  EXPECT_FALSE(restored([](auto& calls) { calls[0].id = "other"; }));
}

TEST(SampledCallsTest, StaysWithinItsRoom) {
  const ParsedCall call = {"f", "{}", true, {{false, std::string(900, 'x')}}};
  SampledCalls kept(3000);
  for (int i = 0; i < 10; ++i) kept.Keep({"id" + std::to_string(i)}, {call});
  EXPECT_LE(kept.bytes(), 3000u);
  std::vector<Message> messages(10);
  for (int i = 0; i < 10; ++i)
    messages[static_cast<size_t>(i)].tool_calls = {{"id" + std::to_string(i), "f", "{}", {}}};
  kept.Restore(messages);
  size_t found = 0;
  for (const Message& message : messages) found += !message.tool_calls[0].sampled.empty();
  EXPECT_EQ(found, 3u);
  EXPECT_FALSE(messages[9].tool_calls[0].sampled.empty());  // the latest
  const size_t bytes = kept.bytes();
  kept.Keep({"id9"}, {call});  // the same again
  EXPECT_EQ(kept.bytes(), bytes);
  kept.Keep({"big"}, {{"f", std::string(5000, 'x'), true, call.sampled}});
  EXPECT_EQ(kept.bytes(), bytes);
}

TEST(RenderPromptTest, FillInTheMiddle) {
  EXPECT_EQ(RenderFillInTheMiddle("a<｜fim▁hole｜>", "b").segments(),
            (std::vector<PromptSegment>{{true, std::string(kBosToken)},
                                        {true, std::string(kFimBeginToken)},
                                        {false, "a<｜fim▁hole｜>"},
                                        {true, std::string(kFimHoleToken)},
                                        {false, "b"},
                                        {true, std::string(kFimEndToken)}}));
}

TEST(RenderPromptTest, WhatIsMissingIsSaidWhenItIsNeeded) {
  const PromptTexts none("model/encoding");
  const auto error = [&](const char* json, const PromptTexts& texts) -> std::string {
    try {
      RenderPrompt(ParseConversation(ParsePythonJson(json, "test")), texts);
      return "";
    } catch (const Error& thrown) {
      return thrown.what();
    }
  };
  EXPECT_EQ(error(R"({"thinking": true, "messages": [{"role": "user", "content": "x"}]})", none),
            "");
  EXPECT_EQ(error(R"({"thinking": true, "reasoning_effort": "low", "messages": []})", none), "");
  EXPECT_EQ(error(R"({"thinking": false, "reasoning_effort": "max", "messages": []})", none), "");
  EXPECT_THAT(error(R"({"thinking": true, "reasoning_effort": "max", "messages": []})", none),
              HasSubstr("model/encoding: has no texts for reasoning efforts"));
  EXPECT_THAT(error(R"({"messages": [], "tools": [{"function": {"name": "f"}}]})", none),
              HasSubstr("model/encoding: has no prompt text for tools"));
  EXPECT_THAT(
      error(R"({"messages": [{"role": "system", "response_format": {"type": "object"}}]})", none),
      HasSubstr("has no prompt text for response formats"));
  EXPECT_THAT(error(R"({"thinking": true, "reasoning_effort": "low", "messages": []})",
                    Texts("encoding_preview.py")),
              HasSubstr("does not know \"low\"; it knows high, max"));
  EXPECT_THAT(error(R"([{"role": "developer", "content": ""}])", none), HasSubstr("no content"));
  const Tokenizer small = Tokenizer::Bytes(259);
  EXPECT_THROW(
      EncodePrompt(RenderPrompt({{Of(Role::kUser, "x")}, false, Effort::kNone, false}, none),
                   small),
      Error);
}

TEST(ConversationTest, BadFieldsAreNamed) {
  const std::vector<std::pair<const char*, const char*>> bad = {
      {"3", "the conversation: has to be an object"},
      {"{}", "messages: is missing"},
      {R"({"messages": 1})", "messages: has to be a list"},
      {R"([1])", "messages[0]: has to be an object"},
      {R"([{"content": "x"}])", "messages[0].role: is missing"},
      {R"([{"role": "function"}])", "messages[0].role: \"function\" is none of system, user"},
      {R"([{"role": "user"}, {"role": "user", "content": 1}])", "messages[1].content: has to be"},
      {R"([{"role": "user", "content": [{"type": "image_url"}]}])", "parts of type \"image_url\""},
      {R"([{"role": "user", "task": "sing"}])", "messages[0].task: \"sing\" is none of action"},
      {R"([{"role": "user", "tools": [{"function": {}}]}])", "only system and developer"},
      {R"([{"role": "system", "tools": [{"name": "f"}]}])",
       "messages[0].tools[0].function: is missing"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {}}]}])",
       "messages[0].tool_calls[0].function.name: is missing"},
      {R"([{"role": "assistant", "reasoning_content": []}])",
       "reasoning_content: has to be a string"},
      {R"([{"role": "assistant", "prefix": "yes"}])", "prefix: has to be true or false"},
      {R"({"messages": [], "thinking": "yes"})", "thinking: has to be true or false"},
      {R"({"messages": [], "thinking": {"type": "on"}})",
       "thinking.type: \"on\" is none of enabled"},
      {R"({"messages": [], "reasoning_effort": "huge"})",
       "\"huge\" is none of none, low, high, max"},
      {R"({"messages": [], "response_format": {"type": "xml"}})", "response_format.type: \"xml\""},
      {R"({"messages": [], "response_format": {"type": "json_schema"}})",
       "json_schema: is missing"},
      {R"({"messages": [{"role": "system", "tools": [{"function": {}}]}], "tools": [{"function": {}}]})",
       "tools: given both"},
  };
  for (const auto& [json, message] : bad) {
    try {
      ParseConversation(ParsePythonJson(json, "test"));
      ADD_FAILURE() << json;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr(message)) << json;
    }
  }
}

}  // namespace
}  // namespace toaster
