#include "server/prompt_tamer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace toaster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Conversation With(const std::string& system) {
  Conversation conversation;
  conversation.messages.resize(3);
  conversation.messages[0].role = Role::kSystem;
  conversation.messages[0].content = system;
  conversation.messages[1].content = "Hi";
  conversation.messages[2].content = "Today's date: never";
  return conversation;
}

TEST(PromptTamerTest, TwoDaysAndTwoRequestsHaveOneSystemPrompt) {
  const auto prompt = [](const std::string& nonce, const std::string& day) {
    return "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=" + nonce +
           ";You are an agent.\n<env>\n  Platform: linux\n  Today's date: " + day +
           "\n</env>\nBe good.";
  };
  Conversation one = With(prompt("fa690", "Thu Nov 26 2026"));
  Conversation other = With(prompt("1c8b4", "Fri Nov 27 2026"));
  EXPECT_THAT(TamePrompt(one), ElementsAre(HasSubstr("left out: 1"), HasSubstr("date")));
  TamePrompt(other);
  EXPECT_EQ(one.messages[0].content,
            "You are an agent.\n<env>\n  Platform: linux\n</env>\nBe good.");
  EXPECT_EQ(one.messages[0].content, other.messages[0].content);
  ASSERT_EQ(one.messages.size(), 4u);
  EXPECT_EQ(one.messages[1].role, Role::kLatestReminder);
  EXPECT_EQ(one.messages[1].content, "Today's date: Thu Nov 26 2026");
  EXPECT_EQ(one.messages[2].content, "Hi");
  // What users say is theirs.
  EXPECT_EQ(one.messages[3].content, "Today's date: never");
}

TEST(PromptTamerTest, TheTimeOfDayIsLeftOut) {
  for (const auto& [line, left] : std::vector<std::pair<std::string, std::string>>{
           {"Current date and time: Monday, March 9, 2026 at 06:00:31 PM PDT",
            "Current date and time: Monday, March 9, 2026"},
           {"- Current time: 2026-07-21 12:12:34.567890", "Current time: 2026-07-21"},
           {"The current date is 2026-06-16T08:30:00Z.", "The current date is 2026-06-16."},
           {"Today is 26 November 2026, 9:05", "Today is 26 November 2026"}}) {
    Conversation conversation = With("Be good.\n" + line + "\nrequest-id: 7f3\n");
    EXPECT_THAT(TamePrompt(conversation),
                ElementsAre(HasSubstr("left out: 1"), HasSubstr("without the time")));
    EXPECT_EQ(conversation.messages[0].content, "Be good.\n");
    EXPECT_EQ(conversation.messages[1].content, left);
  }
}

TEST(PromptTamerTest, OtherPromptsStayAsTheyAre) {
  for (const char* system :
       {"", "Be good.", "Say what the current date is only when you are asked.",
        "Today is a good day to explain at length and in many words why the sun shines on the "
        "fields "
        "and on the hills, and nobody knows."}) {
    Conversation conversation = With(system);
    EXPECT_THAT(TamePrompt(conversation), IsEmpty());
    EXPECT_EQ(conversation.messages[0].content, system);
    EXPECT_EQ(conversation.messages.size(), 3u);
  }
  Conversation nobody_asks;
  nobody_asks.messages.resize(1);
  nobody_asks.messages[0] = With("Today's date: now").messages[0];
  EXPECT_THAT(TamePrompt(nobody_asks), IsEmpty());
}

}  // namespace
}  // namespace toaster
