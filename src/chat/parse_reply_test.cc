#include "chat/parse_reply.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "chat/conversation.h"
#include "chat/python_json.h"
#include "chat/render_prompt.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

using Kind = ReplyEvent::Kind;

/// Deltas of the same kind that follow each other, as one event.
std::vector<ReplyEvent> Joined(const std::vector<ReplyEvent>& events) {
  std::vector<ReplyEvent> joined;
  for (const ReplyEvent& event : events) {
    const bool delta = event.kind == Kind::kReasoning || event.kind == Kind::kContent ||
                       event.kind == Kind::kArguments;
    if (delta && !joined.empty() && joined.back().kind == event.kind &&
        joined.back().call == event.call) {
      joined.back().text += event.text;
    } else {
      joined.push_back(event);
    }
  }
  return joined;
}

struct Reply {
  std::vector<ReplyEvent> events;  ///< joined
  std::vector<ParsedCall> calls;

  std::string All(Kind kind) const {
    std::string text;
    for (const ReplyEvent& event : events) {
      if (event.kind == kind) text += event.text;
    }
    return text;
  }
  std::string reasoning() const { return All(Kind::kReasoning); }
  std::string content() const { return All(Kind::kContent); }
  std::vector<std::string> warnings() const {
    std::vector<std::string> all;
    for (const ReplyEvent& event : events) {
      if (event.kind == Kind::kWarning) all.push_back(event.text);
    }
    return all;
  }
  std::string sampled() const {
    std::string text;
    for (const ParsedCall& call : calls) {
      for (const PromptSegment& segment : call.sampled) text += segment.text;
    }
    return text;
  }
};

/// Parses `text` cut at `cuts` (ascending).
Reply ParseCut(const std::string& text, const std::vector<size_t>& cuts, bool thinking,
               ReplyEnd end) {
  ReplyParser parser(thinking);
  std::vector<ReplyEvent> events;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    parser.Push(std::string_view(text).substr(begin, cut - begin), events);
    begin = cut;
  }
  parser.Push(std::string_view(text).substr(begin), events);
  parser.Finish(end, events);
  return {Joined(events), parser.calls()};
}

Reply Parse(const std::string& text, bool thinking = false, ReplyEnd end = ReplyEnd::kStop) {
  return ParseCut(text, {}, thinking, end);
}

std::string Call(const std::string& name, const std::string& parameters) {
  return fmt::format("<｜DSML｜invoke name=\"{}\">\n{}\n</｜DSML｜invoke>", name, parameters);
}
std::string Parameter(const std::string& key, const std::string& value, bool string = true) {
  return fmt::format("<｜DSML｜parameter name=\"{}\" string=\"{}\">{}</｜DSML｜parameter>", key,
                     string, value);
}
std::string Block(const std::string& calls) {
  return fmt::format("\n\n<｜DSML｜tool_calls>\n{}\n</｜DSML｜tool_calls>", calls);
}

TEST(ParseReplyTest, ReasoningThenContent) {
  const Reply reply = Parse("r</think>hello", true);
  EXPECT_EQ(reply.events, (std::vector<ReplyEvent>{{Kind::kReasoning, "r", 0, true},
                                                   {Kind::kContent, "hello", 0, true}}));
  EXPECT_EQ(Parse("hello").content(), "hello");
  EXPECT_EQ(Parse("hello<｜end▁of▁sentence｜>").events, Parse("hello").events);
  EXPECT_EQ(Parse("</think>x", true).content(), "x");
  EXPECT_TRUE(Parse("").events.empty());
}

TEST(ParseReplyTest, CallsBecomeEvents) {
  const std::string block =
      Block(Call("f", Parameter("a", "x<y") + "\n" + Parameter("n", "3", false)));
  const Reply reply = Parse("go" + block);
  EXPECT_EQ(reply.events,
            (std::vector<ReplyEvent>{{Kind::kContent, "go", 0, true},
                                     {Kind::kCallBegin, "f", 0, true},
                                     {Kind::kArguments, R"({"a": "x<y", "n": 3})", 0, true},
                                     {Kind::kCallEnd, "", 0, true}}));
  EXPECT_EQ(reply.calls[0].arguments, R"({"a": "x<y", "n": 3})");
  EXPECT_EQ(reply.sampled(), block);
  EXPECT_EQ(Parse(block + "<｜end▁of▁sentence｜>").events, Parse(block).events);
}

TEST(ParseReplyTest, CallsWithoutParametersAndSeveralCalls) {
  const std::string block = Block(Call("f", "") + "\n" + Call("g", Parameter("k", "a\"\n\\é")));
  const Reply reply = Parse("r</think>" + block, true);
  ASSERT_EQ(reply.calls.size(), 2u);
  EXPECT_EQ(reply.calls[0].arguments, "{}");
  EXPECT_EQ(reply.calls[1].arguments, R"({"k": "a\"\n\\é"})");
  EXPECT_EQ(reply.sampled(), block);
  EXPECT_EQ(reply.content(), "");
  EXPECT_TRUE(reply.warnings().empty());
}

TEST(ParseReplyTest, StreamsAsSoonAsItIsDecided) {
  ReplyParser parser(false);
  std::vector<ReplyEvent> events;
  const auto push = [&](const char* text) {
    events.clear();
    parser.Push(text, events);
    std::string all;
    for (const ReplyEvent& event : events) all += event.text + "|";
    return all;
  };
  EXPECT_EQ(push("one"), "one|");
  EXPECT_EQ(push(" two\n\n"), " two|");  // the line feeds may belong to a block
  EXPECT_EQ(push("<"), "");
  EXPECT_EQ(push("b>"), "\n\n<b>|");
  EXPECT_EQ(push("\n\n\n<"), "\n|");
  EXPECT_EQ(push("｜DSML｜"), "");
  EXPECT_EQ(push("tool_calls>\n<｜DSML｜invoke name=\"f\">"), "f|");
  EXPECT_EQ(push("\n<｜DSML｜parameter name=\"k\" string=\"true\">ab\""), "{\"k\": \"ab\\\"|");
  EXPECT_EQ(push("c</"), "c|");
  EXPECT_EQ(push("p>"), "</p>|");
  EXPECT_EQ(push("\xE2\x82"), "");
  EXPECT_EQ(push("\xAC"), "€|");
  EXPECT_EQ(push("</｜DSML｜parameter>"), "\"|");
  EXPECT_EQ(push("\n</｜DSML｜invoke>"), "}||");
}

TEST(ParseReplyTest, CallInsideTheReasoning) {
  const std::string block = Block(Call("f", ""));
  const Reply unclosed = Parse("hm" + block, true);
  EXPECT_EQ(unclosed.reasoning(), "hm");
  ASSERT_EQ(unclosed.calls.size(), 1u);
  EXPECT_TRUE(unclosed.calls[0].complete);
  EXPECT_EQ(unclosed.sampled(), block);
  EXPECT_THAT(unclosed.warnings(), ::testing::ElementsAre("a tool call inside the reasoning"));

  const Reply inside = Parse("hm" + block + " so</think>done", true);
  EXPECT_EQ(inside.reasoning(), "hm so");
  EXPECT_EQ(inside.content(), "done");
  EXPECT_EQ(inside.calls.size(), 1u);
}

TEST(ParseReplyTest, CutOffReplies) {
  const std::string whole =
      "ok" + Block(Call("f", Parameter("a", "text") + "\n" + Parameter("n", "[1, 2]", false)));
  // Wherever it is cut: the arguments are an object, and a call that lacks its end is flagged.
  const size_t call_end = whole.find("</｜DSML｜invoke") + std::string("</｜DSML｜invoke").size();
  for (size_t length = 0; length <= whole.size(); ++length) {
    const Reply reply = Parse(whole.substr(0, length), false, ReplyEnd::kLength);
    EXPECT_EQ(reply.content().substr(0, 2), whole.substr(0, std::min<size_t>(length, 2)));
    for (const ParsedCall& call : reply.calls) {
      const auto arguments = TryParsePythonJson(call.arguments);
      ASSERT_TRUE(arguments && arguments->is_object()) << length << call.arguments;
      EXPECT_EQ(call.complete, length >= call_end) << length;
      EXPECT_EQ(call.sampled.empty(), !call.complete);
    }
  }
  const size_t inside = whole.find("xt</");
  EXPECT_EQ(Parse(whole.substr(0, inside), false, ReplyEnd::kLength).calls[0].arguments,
            R"({"a": "te"})");
  const size_t number = whole.find(", 2]");
  EXPECT_EQ(Parse(whole.substr(0, number), false, ReplyEnd::kLength).calls[0].arguments,
            R"({"a": "text", "n": "[1"})");
}

TEST(ParseReplyTest, MissingEndTags) {
  const std::string open = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n";
  for (const std::string& text :
       {open + Parameter("a", "1", false), open + Parameter("a", "1", false) + "\n",
        open + Parameter("a", "1", false) + "\n</｜DSML｜tool_calls>",
        open + Parameter("a", "1", false) + "\n</｜DSML｜invoke>",
        open + Parameter("a", "1", false) + "\n</｜DSML｜invoke>\n<｜end▁of▁sentence｜>",
        open + Parameter("a", "1", false) + "<｜end▁of▁sentence｜>"}) {
    const Reply reply = Parse(text);
    ASSERT_EQ(reply.calls.size(), 1u) << text;
    EXPECT_EQ(reply.calls[0].arguments, R"({"a": 1})");
    EXPECT_TRUE(reply.calls[0].complete) << text;
    EXPECT_GE(reply.warnings().size(), 1u);
    EXPECT_EQ(reply.sampled() + "<｜end▁of▁sentence｜>",
              text.find("<｜end") == text.npos ? text + "<｜end▁of▁sentence｜>" : text);
  }
  const Reply two =
      Parse(open + "<｜DSML｜invoke name=\"g\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>");
  ASSERT_EQ(two.calls.size(), 2u);
  EXPECT_EQ(two.calls[1].name, "g");
}

TEST(ParseReplyTest, RepeatedParameters) {
  const Reply reply = Parse(Block(
      Call("f", Parameter("a", "1") + "\n" + Parameter("a", "2") + "\n" + Parameter("b", "3"))));
  EXPECT_EQ(reply.calls[0].arguments, R"({"a": "1", "b": "3"})");
  EXPECT_THAT(reply.warnings(), ::testing::ElementsAre("dropped a second parameter \"a\""));
}

TEST(ParseReplyTest, ValuesThatAreNoJson) {
  const auto arguments = [](const std::string& value) {
    const Reply reply = Parse(Block(Call("f", Parameter("v", value, false))));
    EXPECT_EQ(reply.warnings().size(), 1u) << value;
    return reply.calls.at(0).arguments;
  };
  EXPECT_EQ(arguments("True"), R"({"v": "True"})");
  EXPECT_EQ(arguments("{'a': 1}"), R"({"v": "{'a': 1}"})");
  EXPECT_EQ(arguments(""), R"({"v": ""})");
  EXPECT_EQ(arguments("[1, 2"), R"({"v": "[1, 2"})");
  EXPECT_EQ(arguments("1 2"), R"({"v": "1 2"})");
  EXPECT_EQ(arguments("\"\xFF\""), "{\"v\": \"\\\"\xEF\xBF\xBD\\\"\"}");
  EXPECT_EQ(Parse(Block(Call("f", Parameter("v", " {\"a\":1} ", false)))).calls[0].arguments,
            R"({"v":  {"a":1} })");
}

TEST(ParseReplyTest, MarkupInValuesIsText) {
  const std::string value =
      "</ <think> ｜DSML｜ <｜DSML｜invoke name=\"x\"> </｜DSML｜tool_calls> </p>";
  const std::string block = Block(Call("f", Parameter("v", value)));
  const Reply reply = Parse(block);
  ASSERT_EQ(reply.calls.size(), 1u);
  EXPECT_EQ(TryParsePythonJson(reply.calls[0].arguments)->items[0].text, value);
  EXPECT_EQ(reply.sampled(), block);
  // Only the tags of the structure are control tokens in the record.
  size_t control = 0;
  for (const PromptSegment& segment : reply.calls[0].sampled) control += segment.control;
  EXPECT_EQ(control, 6u);
}

TEST(ParseReplyTest, MarkupOutOfPlaceIsDropped) {
  EXPECT_EQ(Parse("a<｜User｜>b</think>c<think>d").content(), "abcd");
  EXPECT_EQ(Parse("a</｜DSML｜tool_calls>b").content(), "ab");
  EXPECT_EQ(Parse("a<｜DSML｜thing x=\"1\">b").content(), "ab");
  EXPECT_EQ(Parse("a<｜DSML｜thing\nb").content(), "a\nb");
  EXPECT_EQ(Parse("a｜DSML｜b").content(), "ab");
  EXPECT_EQ(Parse("a<think>b</think>c", true).reasoning(), "ab");
  EXPECT_EQ(Parse("a｜b <|User|> <thinking> </ <｜").content(), "a｜b <|User|> <thinking> </ ");
  EXPECT_EQ(Parse("a<｜end▁of▁sentence｜>b").content(), "a");
  // The parts beside what is dropped make no new markup.
  EXPECT_EQ(Parse("</thi<｜User｜>nk>").content(), "</thi\uFFFDnk>");
  EXPECT_EQ(Parse("x<｜DSM<think>L｜a <｜D<think>SML｜").content(),
            "x<｜DSM\uFFFDL｜a <｜D\uFFFDSML｜");
  const Reply thinks = Parse("\n<think>hm</think>ok");
  EXPECT_EQ(thinks.reasoning(), "hm");
  EXPECT_EQ(thinks.content(), "\nok");
}

TEST(ParseReplyTest, BlocksInOtherShapes) {
  const std::string call = Call("f", Parameter("a", "b"));
  for (const std::string& text :
       {"x<｜DSML｜tool_calls>" + call + "</｜DSML｜tool_calls>", "x\n" + call,
        "x\n\n<｜DSML｜tool_calls>\n\n" + call + "\n\n</｜DSML｜tool_calls>\n",
        "x\n\n" + call + "\n</｜DSML｜tool_calls>",
        "x\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\" id=\"3\" >" + Parameter("a", "b") +
            "</｜DSML｜invoke></｜DSML｜tool_calls>"}) {
    const Reply reply = Parse(text);
    EXPECT_EQ(reply.content().substr(0, 1), "x");
    EXPECT_EQ(reply.content().find("DSML"), std::string::npos) << text;
    ASSERT_EQ(reply.calls.size(), 1u) << text;
    EXPECT_EQ(reply.calls[0].name, "f");
    EXPECT_EQ(reply.calls[0].arguments, R"({"a": "b"})");
  }
  const Reply behind = Parse(Block(call) + "\nmore" + Block(call));
  EXPECT_EQ(behind.content(), "\nmore");
  EXPECT_EQ(behind.calls.size(), 2u);
  EXPECT_THAT(behind.warnings(), ::testing::ElementsAre("the reply goes on behind the tool calls"));
  EXPECT_EQ(Parse("\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke>\nx</｜DSML｜invoke>\n" + call +
                  "\n</｜DSML｜tool_calls>")
                .calls.size(),
            1u);
}

// --- properties

constexpr std::array kControl = {kThinkToken, kEndThinkToken, kDsmlToken,          kBosToken,
                                 kEosToken,   kUserToken,     kAssistantToken,     kActionToken,
                                 kQueryToken, kFimHoleToken,  kLatestReminderToken};

void ExpectClean(const Reply& reply, const std::string& text) {
  for (const std::string& shown : {reply.reasoning(), reply.content()}) {
    for (const std::string_view token : kControl)
      ASSERT_EQ(shown.find(token), std::string::npos) << token << " leaks from " << text;
    ASSERT_EQ(WellFormedPrefix(shown), shown.size()) << text;
  }
  size_t ended = 0;
  for (const ReplyEvent& event : reply.events) ended += event.kind == Kind::kCallEnd;
  ASSERT_EQ(ended, reply.calls.size());
  for (size_t i = 0; i < reply.calls.size(); ++i) {
    const auto arguments = TryParsePythonJson(reply.calls[i].arguments);
    ASSERT_TRUE(arguments && arguments->is_object())
        << reply.calls[i].arguments << " from " << text;
    std::string streamed;
    for (const ReplyEvent& event : reply.events) {
      if (event.kind == Kind::kArguments && event.call == i) streamed += event.text;
    }
    ASSERT_EQ(streamed, reply.calls[i].arguments);
  }
}

/// Replies put together from what models write, right and wrong.
std::string Generate(std::mt19937& random) {
  static const std::vector<std::string> pieces = {"I'll look. ",
                                                  "Let me think",
                                                  "答案是：",
                                                  "😀",
                                                  "\n",
                                                  "\n\n",
                                                  "\n\n\n",
                                                  " ",
                                                  "<",
                                                  "</",
                                                  ">",
                                                  "\"",
                                                  "<b>x</b>",
                                                  "｜",
                                                  "<｜",
                                                  "</think>",
                                                  "<think>",
                                                  "<｜end▁of▁sentence｜>",
                                                  "<｜User｜>",
                                                  "｜DSML｜",
                                                  "<｜DSML｜",
                                                  "</｜DSML｜",
                                                  "<｜DSML｜tool_calls>",
                                                  "<｜DSML｜tool_calls>\n",
                                                  "\n\n<｜DSML｜tool_calls>\n",
                                                  "</｜DSML｜tool_calls>",
                                                  "\n</｜DSML｜tool_calls>",
                                                  "<｜DSML｜invoke name=\"f\">\n",
                                                  "<｜DSML｜invoke name=\"get time\">\n",
                                                  "<｜DSML｜invoke",
                                                  "</｜DSML｜invoke>\n",
                                                  "</｜DSML｜invoke>",
                                                  "<｜DSML｜parameter name=\"a\" string=\"true\">",
                                                  "<｜DSML｜parameter name=\"b\" string=\"false\">",
                                                  "<｜DSML｜parameter name=\"é\"",
                                                  " string=\"maybe\">",
                                                  "</｜DSML｜parameter>\n",
                                                  "</｜DSML｜parameter>",
                                                  "</｜DSML｜par",
                                                  "{\"x\": [1, 2.5, null]}",
                                                  "12",
                                                  "True",
                                                  "tool_calls",
                                                  "invoke",
                                                  "name=\"",
                                                  "\xFF",
                                                  "\xE2\x82",
                                                  "\xAC",
                                                  "\\",
                                                  "{",
                                                  "}"};
  std::string text;
  switch (random() % 3) {
    case 0:  // noise
      for (size_t i = random() % 14; i > 0; --i) text += pieces[random() % pieces.size()];
      break;
    case 1:  // a sound reply
      text =
          "reason</think>answer" + Block(Call("f", Parameter("a", pieces[random() % 14]) + "\n" +
                                                       Parameter("n", "[1, {\"k\": 2}]", false)) +
                                         "\n" + Call("g", ""));
      break;
    default:  // a sound reply with something put in, taken out or cut off
      text = "reason</think>answer" + Block(Call("f", Parameter("a", "v")) + "\n" + Call("g", ""));
      for (size_t i = 1 + random() % 2; i > 0; --i) {
        const size_t place = random() % text.size();
        if (random() % 2) {
          text.insert(place, pieces[random() % pieces.size()]);
        } else {
          text.erase(place, random() % 20);
        }
        if (text.empty()) text = "x";
      }
      if (random() % 3 == 0) text.resize(random() % (text.size() + 1));
  }
  return text;
}

TEST(ParseReplyPropertyTest, EventsDoNotDependOnTheCuts) {
  std::mt19937 random(2024);
  for (int round = 0; round < 1500; ++round) {
    const std::string text = Generate(random);
    const bool thinking = random() % 2;
    const ReplyEnd end = random() % 2 ? ReplyEnd::kStop : ReplyEnd::kLength;
    const Reply whole = ParseCut(text, {}, thinking, end);
    ExpectClean(whole, text);
    std::vector<size_t> everywhere;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      everywhere.push_back(cut);
      const Reply once = ParseCut(text, {cut}, thinking, end);
      ASSERT_EQ(once.events, whole.events) << text << "\ncut at " << cut;
      ASSERT_EQ(once.sampled(), whole.sampled());
    }
    ASSERT_EQ(ParseCut(text, everywhere, thinking, end).events, whole.events) << text;
  }
}

TEST(ParseReplyPropertyTest, RenderedCallsComeBackByteForByte) {
  std::mt19937 random(7);
  const std::vector<std::string> values = {"x",        "",     "a\nb",
                                           "<b>",      "</",   "日本 😀",
                                           "\"q\"",    "\\n",  "</｜DSML｜invoke>",
                                           "[1, 2.5]", "null", "{\"k\": \"é\"}"};
  for (int round = 0; round < 500; ++round) {
    std::vector<ToolCall> calls(1 + random() % 3);
    for (ToolCall& call : calls) {
      call.name = fmt::format("tool{}", random() % 10);
      JsonValue arguments = JsonValue::Object();
      for (size_t i = random() % 4; i > 0; --i) {
        const std::string& value = values[random() % values.size()];
        const auto json = TryParsePythonJson(value);
        arguments.Set(fmt::format("k{}", i),
                      json && random() % 2 ? *json : JsonValue::String(value));
      }
      call.arguments = DumpPythonJson(arguments);
    }
    const Prompt block = RenderToolCalls(calls);
    const Reply reply = Parse("content" + block.Text());
    EXPECT_EQ(reply.content(), "content");
    EXPECT_TRUE(reply.warnings().empty());
    ASSERT_EQ(reply.calls.size(), calls.size());
    Prompt sampled;
    for (size_t i = 0; i < calls.size(); ++i) {
      EXPECT_EQ(reply.calls[i].name, calls[i].name);
      EXPECT_EQ(reply.calls[i].arguments, calls[i].arguments);
      sampled.Add(reply.calls[i].sampled);
    }
    EXPECT_EQ(sampled.segments(), block.segments());
  }
}

}  // namespace
}  // namespace toaster
