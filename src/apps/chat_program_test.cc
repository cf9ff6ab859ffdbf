// `toaster run` as a person uses it, behind a pseudo terminal.

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/program_terminal.h"
#include "apps/random_model.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using nlohmann::json;
using test::ProgramTerminal;
using test::ReadFile;
using test::TemporaryDirectory;
using test::WriteFile;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kCtrlC = "\x03";
constexpr const char* kCtrlD = "\x04";

class ChatProgram : public testing::Test {
 protected:
  /// A model that writes no control token and so ends no reply, and thinks never.
  std::vector<std::string> Arguments(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"run", "--seed", "5", "--think", "off", "--threads", "1"};
    for (int token = 0; token < 278; ++token) {
      if (token > 2 && token < 259) continue;
      arguments.insert(arguments.end(), {"--logit-bias", std::to_string(token) + ":-1000"});
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::string home() const { return home_.path().string(); }
  std::string HomeFile(const std::string& name) const { return (home_.path() / name).string(); }

  const TemporaryDirectory home_;
  const test::ScopedRandomModel model_;
};

TEST_F(ChatProgram, TalksTurnsAndSavesAndLoads) {
  ProgramTerminal terminal(Arguments({"-n", "20"}), home());
  ASSERT_NE(terminal.WaitFor("/help lists the commands"), "");
  terminal.Type("hello there\r");
  ASSERT_NE(terminal.WaitFor("[stopped at --max-tokens]"), "");
  terminal.Type("and again\r");
  ASSERT_NE(terminal.WaitFor("[stopped at --max-tokens]"), "");
  // BOS, User, 11 bytes, Assistant, </think>, 20 tokens: the next turn begins with all of them.
  terminal.Type("/stats\r");
  EXPECT_THAT(terminal.WaitFor("peak memory"),
              AllOf(HasSubstr("prompt: 48 tokens, 34 reused, 14 read"), HasSubstr("4 messages")));

  const std::string file = HomeFile("chat.json");
  terminal.Type("/save " + file + "\r");
  ASSERT_NE(terminal.WaitFor("saved 4 messages"), "");
  const json saved = json::parse(ReadFile(file));
  EXPECT_EQ(saved["thinking"], false);
  EXPECT_EQ(saved["messages"][0], json({{"role", "user"}, {"content", "hello there"}}));
  EXPECT_EQ(saved["messages"][3]["role"], "assistant");
  struct stat status = {};
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);

  terminal.Type("/system Be brief.\r/clear\r");
  ASSERT_NE(terminal.WaitFor("a new conversation"), "");
  terminal.Type("/stats\r");
  EXPECT_THAT(terminal.WaitFor("peak memory"), HasSubstr("1 message,"));
  terminal.Type("/load " + file + "\r");
  ASSERT_NE(terminal.WaitFor("loaded 4 messages"), "");
  terminal.Type("/undo\r");
  ASSERT_NE(terminal.WaitFor("taken back; 2 messages left"), "");
  terminal.Type("/nonsense\r");
  ASSERT_NE(terminal.WaitFor("/nonsense: no such command; /help lists them"), "");
  terminal.Type("/load " + HomeFile("missing.json") + "\r");
  ASSERT_NE(terminal.WaitFor("missing.json: cannot open: No such file"), "");
  terminal.Type("/max\r");
  ASSERT_NE(terminal.WaitFor("has no texts for reasoning efforts"), "");

  WriteFile(HomeFile("notes.txt"), "some notes");
  terminal.Type("/file ~/notes.txt\r");
  ASSERT_NE(terminal.WaitFor("10 bytes go with the next message"), "");
  terminal.Type("what do they say?\r");
  ASSERT_NE(terminal.WaitFor("[stopped at --max-tokens]"), "");
  terminal.Type("/save " + file + "\r");
  ASSERT_NE(terminal.WaitFor("saved 4 messages"), "");
  EXPECT_EQ(json::parse(ReadFile(file))["messages"][2]["content"],
            "notes.txt:\n\nsome notes\n\nwhat do they say?");
  terminal.Type(kCtrlD);
  EXPECT_EQ(terminal.Wait(), 0);
  EXPECT_THAT(ReadFile(HomeFile("state/toaster/history")),
              testing::StartsWith("hello there\nand again\n/stats\n"));
}

TEST_F(ChatProgram, HasAHistoryAndStandsAResize) {
  const std::string history = HomeFile("state/toaster");
  std::filesystem::create_directories(history);
  WriteFile(history + "/history", "what was said before\n");
  ProgramTerminal terminal(Arguments({"-n", "1"}), home());
  ASSERT_NE(terminal.WaitFor("/help lists the commands"), "");
  terminal.Type("\033[A");
  ASSERT_NE(terminal.WaitFor("what was said before"), "");
  terminal.Resize(40);
  ASSERT_NE(terminal.WaitFor("what was said before"), "");
  terminal.Type(" and more\r");
  ASSERT_NE(terminal.WaitFor("[stopped at --max-tokens]"), "");
  terminal.Type("one\\\r");
  ASSERT_NE(terminal.WaitFor(". "), "") << "the prompt of a line that goes on";
  terminal.Type("two\r");
  ASSERT_NE(terminal.WaitFor("[stopped at --max-tokens]"), "");
  terminal.Type("/save " + HomeFile("chat.json") + "\r/exit\r");
  EXPECT_EQ(terminal.Wait(), 0);
  const json saved = json::parse(ReadFile(HomeFile("chat.json")));
  EXPECT_EQ(saved["messages"][0]["content"], "what was said before and more");
  EXPECT_EQ(saved["messages"][2]["content"], "one\ntwo");
}

TEST_F(ChatProgram, CtrlCStopsAReplyAndKeepsIt) {
  ProgramTerminal terminal(Arguments(), home());
  ASSERT_NE(terminal.WaitFor("/help lists the commands"), "");
  terminal.Type(kCtrlC);
  ASSERT_NE(terminal.WaitFor("Ctrl-D or /exit leaves"), "");
  terminal.Type("tell me a long story\r");
  ASSERT_NE(terminal.WaitFor("long story"), "");
  ASSERT_TRUE(terminal.WaitForBytes(200));
  terminal.Type(kCtrlC);
  ASSERT_NE(terminal.WaitFor("[stopped]"), "");
  terminal.Type("go on\r");
  ASSERT_NE(terminal.WaitFor("go on"), "");
  ASSERT_TRUE(terminal.WaitForBytes(200));
  terminal.Type(kCtrlC);
  ASSERT_NE(terminal.WaitFor("[stopped]"), "");
  terminal.Type("/stats\r");
  // BOS, User, 20 bytes, Assistant, </think> and all of the stopped reply, of whose tokens at
  // least 200 / 4 were needed for 200 bytes (\xNN is four of them).
  const std::string figures = terminal.WaitFor("peak memory");
  int prompt = 0, reused = 0, read = 0;
  const size_t place = figures.find("prompt: ");
  ASSERT_NE(place, figures.npos) << figures;
  std::string numbers = figures.substr(place);
  numbers.erase(std::remove(numbers.begin(), numbers.end(), ','), numbers.end());
  ASSERT_EQ(
      std::sscanf(numbers.c_str(), "prompt: %d tokens %d reused %d read", &prompt, &reused, &read),
      3);
  EXPECT_GE(reused, 24 + 50);
  EXPECT_THAT(figures, AllOf(HasSubstr("ended by interrupted"), HasSubstr("4 messages")));
  terminal.Type(kCtrlD);
  EXPECT_EQ(terminal.Wait(), 0);
}

TEST_F(ChatProgram, APasteOf200KilobytesIsOneMessage) {
  // A model with room for it.
  const auto model = home_.path() / "model";
  std::filesystem::copy(test::RandomModel(), model);
  json config = json::parse(ReadFile(model / "config.json"));
  config["max_position_embeddings"] = 1 << 20;
  WriteFile(model / "config.json", config.dump());

  std::string text;
  for (int line = 0; text.size() < 200000; ++line)
    text += "line " + std::to_string(line) + " of a long text with a tab\there\n";
  std::string pasted = text;
  std::replace(pasted.begin(), pasted.end(), '\n', '\r');
  ProgramTerminal terminal(Arguments({model.string()}), home());
  ASSERT_NE(terminal.WaitFor("/help lists the commands"), "");
  terminal.Type("\033[200~" + pasted + "\033[201~");
  ASSERT_NE(terminal.WaitFor("[paste 1: "), "");
  terminal.Type(" what is it?\r");
  // Reading it takes long; stop there.
  ASSERT_NE(terminal.WaitFor("prompt: "), "");
  terminal.Type(kCtrlC);
  ASSERT_NE(terminal.WaitFor("[stopped after "), "");
  terminal.Type("/save " + HomeFile("chat.json") + "\r");
  ASSERT_NE(terminal.WaitFor("saved 1 message"), "");
  EXPECT_EQ(json::parse(ReadFile(HomeFile("chat.json")))["messages"][0]["content"],
            text + " what is it?");

  terminal.Type("/clear\r");
  ASSERT_NE(terminal.WaitFor("a new conversation"), "");

  // From a terminal that does not mark pastes; the last line end sends it. In one write, so that
  // it is all there when the program looks.
  text.resize(text.find('\n', 150));
  terminal.Type(pasted.substr(0, text.size()) + "\r");
  ASSERT_NE(terminal.WaitFor("[paste 2: "), "");
  ASSERT_NE(terminal.WaitFor(" bytes]"), "");
  ASSERT_TRUE(terminal.WaitForBytes(200));
  terminal.Type(kCtrlC);
  ASSERT_NE(terminal.WaitFor("[stopped]"), "");
  terminal.Type("/save " + HomeFile("chat.json") + "\r");
  ASSERT_NE(terminal.WaitFor("saved 2 messages"), "");
  EXPECT_EQ(json::parse(ReadFile(HomeFile("chat.json")))["messages"][0]["content"], text);
  terminal.Type(kCtrlD);
  EXPECT_EQ(terminal.Wait(), 0);
}

}  // namespace
}  // namespace toaster
