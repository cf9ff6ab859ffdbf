#include "apps/reply_view.h"

#include <gmock/gmock.h>

namespace toaster {
namespace {

using Kind = ReplyEvent::Kind;

std::string Shown(ReplyView& view, const std::vector<ReplyEvent>& events) {
  std::string shown;
  int64_t tokens = 0;
  for (const ReplyEvent& event : events) {
    if (event.kind == Kind::kReasoning) ++tokens;
    shown += view.Show(event, tokens);
  }
  return shown + view.Finish(tokens);
}

TEST(ReplyView, ShowsReasoningDimAndTheAnswerAsItIs) {
  ReplyView view(true, false);
  EXPECT_EQ(Shown(view, {{Kind::kReasoning, "so"}, {Kind::kContent, "**Yes**\n- a"}}),
            "\033[2mso\033[0m\n\n**Yes**\n- a\n");
  ReplyView plain(false, false);
  EXPECT_EQ(Shown(plain, {{Kind::kReasoning, "so\n"}, {Kind::kContent, "Yes\n"}}), "so\n\nYes\n");
}

TEST(ReplyView, FoldedReasoningIsOneLineWithItsTokens) {
  ReplyView view(false, true);
  const std::string shown = Shown(
      view, {{Kind::kReasoning, "one\n"}, {Kind::kReasoning, "two\n"}, {Kind::kContent, "Yes"}});
  EXPECT_EQ(shown,
            "\r[thinking: 1 tokens]\033[K\r[thinking: 2 tokens]\033[K"
            "\r[thought: 2 tokens]\033[K\n\nYes\n");
  // Stopped while thinking.
  ReplyView stopped(false, true);
  EXPECT_EQ(Shown(stopped, {{Kind::kReasoning, "one"}}),
            "\r[thinking: 1 tokens]\033[K\r[thought: 1 tokens]\033[K\n");
}

TEST(ReplyView, AWarningInTheReasoningDoesNotEndIt) {
  ReplyView view(false, false);
  EXPECT_EQ(
      Shown(view, {{Kind::kReasoning, "a"}, {Kind::kWarning, "dropped"}, {Kind::kReasoning, "b"}}),
      "ab\n");
}

TEST(ReplyView, ShowsCalls) {
  ReplyView view(false, false);
  EXPECT_EQ(Shown(view, {{Kind::kContent, "Let me look."},
                         {Kind::kCallBegin, "find"},
                         {Kind::kArguments, "{\"x\": 1}"},
                         {Kind::kCallEnd, ""}}),
            "Let me look.\n[calls find with {\"x\": 1}]\n");
}

TEST(TerminalText, LetsNoReplySteerTheTerminal) {
  EXPECT_EQ(TerminalText("a\tb\nc"), "a\tb\nc");
  EXPECT_EQ(TerminalText("Gr\xC3\xBC\xC3\x9F"), "Gr\xC3\xBC\xC3\x9F");
  EXPECT_EQ(TerminalText("a\r\n"), "a\n");
  EXPECT_EQ(TerminalText("\x1b[2J\x07\xC2\x9B"), "\\x1b[2J\\x07\\x9b");
  EXPECT_EQ(TerminalText("\xFF"), "\\xff");
}

}  // namespace
}  // namespace toaster
