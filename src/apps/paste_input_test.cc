#include "apps/paste_input.h"

#include <gmock/gmock.h>

namespace toaster {
namespace {

/// What comes out: keys joined, pastes in brackets.
std::string Read(PasteInput& input, bool quiet) {
  std::string read;
  while (const auto piece = input.Next(quiet))
    read += piece->paste ? "{" + piece->text + "}" : piece->text;
  return read;
}

std::string Read(std::string_view bytes) {
  PasteInput input;
  input.Push(bytes);
  std::string read = Read(input, false);
  return read + Read(input, true);
}

TEST(PasteInput, GivesTypedKeysAsTheyAre) {
  EXPECT_EQ(Read("hello\r"), "hello\r");
  EXPECT_EQ(Read("gr\xC3\xBC\xC3\x9F\n"), "gr\xC3\xBC\xC3\x9F\n");
  EXPECT_EQ(Read("\033[A\033[D\r"), "\033[A\033[D\r");
  EXPECT_EQ(Read("\033"), "\033");
  EXPECT_EQ(Read("\xFFz"), "\xEF\xBF\xBDz");
}

TEST(PasteInput, TakesWhatStandsBetweenThePasteMarks) {
  EXPECT_EQ(Read("a\033[200~one\rtwo\r\nthree\033[201~b\r"), "a{one\ntwo\nthree}b\r");
  EXPECT_EQ(Read("\033[200~\033[A\033[201~"), "{\033[A}");
}

TEST(PasteInput, GivesTheSameForEveryCut) {
  const std::string bytes = "a\033[200~one\r\033[20 \xC3\xBC\033[201~b\033[Ac\r";
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    PasteInput input;
    input.Push(bytes.substr(0, cut));
    std::string read = Read(input, false);
    input.Push(bytes.substr(cut));
    read += Read(input, false) + Read(input, true);
    EXPECT_EQ(read, "a{one\n\033[20 \xC3\xBC}b\033[Ac\r") << cut;
  }
}

TEST(PasteInput, WithoutMarksABurstIsOnePaste) {
  EXPECT_EQ(Read("one\rtwo\rthree\r"), "{one\ntwo\nthree}\r");
  EXPECT_EQ(Read("one\rtwo\rthree"), "{one\ntwo\nthree}");
  const std::string lng(1000, 'x');
  EXPECT_EQ(Read(lng + "\r"), "{" + lng + "}\r");
  // In several parts, as long as no quiet moment is between them.
  PasteInput input;
  input.Push("one\rtwo");
  EXPECT_EQ(Read(input, false), "");
  EXPECT_TRUE(input.Undecided());
  input.Push("\rthree\r");
  EXPECT_EQ(Read(input, false), "");
  EXPECT_EQ(Read(input, true), "{one\ntwo\nthree}\r");
  EXPECT_FALSE(input.Undecided());
}

TEST(PasteInput, CommandsMayBeTypedAhead) {
  EXPECT_EQ(Read("/stats\r/exit\r"), "/stats\r/exit\r");
  EXPECT_EQ(Read("// a comment\rint x;\r"), "{// a comment\nint x;}\r");
}

TEST(PasteInput, ClearForgetsAnUnfinishedPaste) {
  PasteInput input;
  input.Push("\033[200~never ends");
  EXPECT_EQ(Read(input, true), "");
  EXPECT_FALSE(input.Undecided());
  input.Clear();
  input.Push("x\r");
  EXPECT_EQ(Read(input, false), "x\r");
}

TEST(PasteLabel, ShowsShortPastesAsTheyAre) {
  EXPECT_EQ(PasteLabel("one line", 1), "one line");
  EXPECT_EQ(PasteLabel("two\nlines", 1), "[paste 1: 2 lines, 9 bytes]");
  EXPECT_EQ(PasteLabel("tab\t", 2), "[paste 2: 1 lines, 4 bytes]");
  EXPECT_EQ(PasteLabel(std::string(200000, 'x'), 3), "[paste 3: 1 lines, 200,000 bytes]");
}

}  // namespace
}  // namespace toaster
