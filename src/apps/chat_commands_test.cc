#include "apps/chat_commands.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace toaster {
namespace {

using testing::HasSubstr;

std::string Refusal(std::string_view line) {
  try {
    ParseChatCommand(line);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(ChatCommands, BeginWithASlash) {
  EXPECT_TRUE(IsChatCommand("/help"));
  EXPECT_TRUE(IsChatCommand("/"));
  EXPECT_FALSE(IsChatCommand(" /help"));
  EXPECT_FALSE(IsChatCommand(""));
  EXPECT_FALSE(IsChatCommand("help"));
}

TEST(ChatCommands, AreReadWithTheirArguments) {
  EXPECT_EQ(ParseChatCommand("/think").kind, ChatCommandKind::kThink);
  EXPECT_EQ(ParseChatCommand("/think").argument, "");
  EXPECT_EQ(ParseChatCommand("/think  high ").argument, "high");
  EXPECT_EQ(ParseChatCommand("/max").kind, ChatCommandKind::kThink);
  EXPECT_EQ(ParseChatCommand("/max").argument, "max");
  EXPECT_EQ(ParseChatCommand("/nothink").kind, ChatCommandKind::kNoThink);
  EXPECT_EQ(ParseChatCommand("/system You are\nbrief. ").argument, "You are\nbrief.");
  EXPECT_EQ(ParseChatCommand("/file a b.txt").argument, "a b.txt");
  EXPECT_EQ(ParseChatCommand("/exit").kind, ChatCommandKind::kExit);
}

TEST(ChatCommands, RefuseWhatTheyCannotRead) {
  EXPECT_THAT(Refusal("/nonsense here"), HasSubstr("/nonsense: no such command; /help"));
  EXPECT_THAT(Refusal("/"), HasSubstr("no such command"));
  EXPECT_THAT(Refusal("/thinking"), HasSubstr("no such command"));
  EXPECT_EQ(Refusal("/save"), "write /save FILE");
  EXPECT_EQ(Refusal("/stats now"), "/stats takes no argument");
  EXPECT_THAT(Refusal("/\x1b[2J"), Not(HasSubstr("\x1b")));
}

TEST(ChatCommands, HelpNamesEveryOne) {
  for (const char* name : {"/think", "/nothink", "/max", "/system", "/file", "/save", "/load",
                           "/stats", "/fold", "/undo", "/clear", "/help", "/exit"}) {
    EXPECT_THAT(ChatCommandHelp(), HasSubstr(name));
  }
}

}  // namespace
}  // namespace toaster
