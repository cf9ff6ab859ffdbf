#include "chat/prompt_texts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "base/error.h"
#include "base/temporary_directory.h"
#include "chat/python_constants.h"

namespace toaster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kFolder = TOASTER_SOURCE_DIR "/tests/data/chat/";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string ErrorOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PythonConstantsTest, ReadsStringsAndTables) {
  const PythonConstants found = ReadPythonConstants(
      "\xEF\xBB\xBF'''doc\nA = \"no\"\n'''\n"
      "A = 'one'\n"
      "B: str = (\"t\" 'w'  # comment\n  \"o\")\n"
      "C = 'a\\tb\\\\\\x41\\u00e9\\U0001F600\\101\\q\\\nd'\n"
      "D = r'raw\\n' \"\"\"three \"quotes\"\n'lines'\"\"\"\n"
      "E = {'x': 'y', \"z\": (\"1\" \"2\"),}\r\n"
      "F = 'gone'\nF = str(3)\n"
      "G = f'{A}'\nH = b'bytes'\nI = 'a' + A\nJ = ['list']\n"
      "K = 'crlf\\\r\nend'\n"
      "if True:\n  L = 'indented'\n"
      "def f(a='x', *, b=\"y\"):\n    return {'k': [1, (2)]}\n"
      "A.b = 'x'\nM, N = 'a', 'b'\nO: Dict[str, str] = {}\n"
      "x = 1; P = 'second'\n"
      "Q = (('nested'))",
      "test.py");
  EXPECT_THAT(found.strings, ElementsAre(std::pair("A", "one"), std::pair("B", "two"),
                                         std::pair("C", "a\tb\\Aé😀A\\qd"),
                                         std::pair("D", "raw\\nthree \"quotes\"\n'lines'"),
                                         std::pair("K", "crlfend"), std::pair("Q", "nested")));
  EXPECT_EQ(found.tables.size(), 2u);
  EXPECT_EQ(found.tables.at("E"), (std::map<std::string, std::string>{{"x", "y"}, {"z", "12"}}));
  EXPECT_TRUE(found.tables.at("O").empty());
}

TEST(PythonConstantsTest, DamageIsNamedWithItsLine) {
  const auto error = [](const char* source) {
    return ErrorOf([&] { ReadPythonConstants(source, "test.py"); });
  };
  EXPECT_THAT(error("A = 1\nB = 'open\n"), HasSubstr("test.py: line 2: a string that never ends"));
  EXPECT_THAT(error("A = '''open\n\n"), HasSubstr("line 1: a string that never ends"));
  EXPECT_THAT(error("A = (1\n"), HasSubstr("'(' is never closed"));
  EXPECT_THAT(error("A = (1]\n"), HasSubstr("']' closes nothing"));
  EXPECT_THAT(error("A = '\\ud800'"), HasSubstr("names no character"));
  EXPECT_THAT(error("A = '\\x4'"), HasSubstr("without its digits"));
  EXPECT_THAT(error("A = '\\N{BULLET}'"), HasSubstr("by name"));
  EXPECT_THAT(error(std::string(1000, '(').c_str()), HasSubstr("too many brackets"));
}

TEST(PromptTextsTest, TheTwoKindsOfEncodersHaveTheirLevels) {
  const PromptTexts preview =
      PromptTexts::FromEncoder(ReadFile(kFolder + "encoding_preview.py"), "preview");
  EXPECT_THAT(preview.Efforts(), ElementsAre(Effort::kHigh, Effort::kMax));
  EXPECT_EQ(preview.EffortText(Effort::kNone), "");
  EXPECT_EQ(preview.EffortText(Effort::kHigh), "");
  EXPECT_THAT(std::string(preview.EffortText(Effort::kMax)), HasSubstr("don't “guess”.\n\n"));
  EXPECT_THROW(preview.EffortText(Effort::kLow), Error);
  EXPECT_EQ(preview.ToolsAfter(), "\n\nUse these tools only.\n");
  EXPECT_THAT(std::string(preview.ToolsBefore()), HasSubstr("A brace: {.\n\n"));
  // Our texts are no vendor's: each constant is named.
  EXPECT_THAT(preview.warnings(),
              ElementsAre(HasSubstr("REASONING_EFFORT_MAX is not the text of a known revision"),
                          HasSubstr("TOOLS_TEMPLATE, before the schemas,"),
                          HasSubstr("TOOLS_TEMPLATE, after the schemas,"),
                          HasSubstr("response_format_template")));

  const PromptTexts later =
      PromptTexts::FromEncoder(ReadFile(kFolder + "encoding_0731.py"), "0731");
  EXPECT_THAT(later.Efforts(), ElementsAre(Effort::kLow, Effort::kHigh, Effort::kMax));
  EXPECT_EQ(later.EffortText(Effort::kLow), "");
  EXPECT_EQ(later.EffortText(Effort::kMax), "Effort: more than that — twice.\n\n");
}

TEST(PromptTextsTest, TemplatesOfOtherShapesAreNamed) {
  const auto error = [](const std::string& value) {
    return ErrorOf([&] { PromptTexts::FromEncoder("TOOLS_TEMPLATE = \"" + value + "\"", "e.py"); });
  };
  EXPECT_THAT(error("{tool_schemas}{color}"), HasSubstr("the placeholder {color} is unknown"));
  EXPECT_THAT(error("none"), HasSubstr("has no placeholder {tool_schemas}"));
  EXPECT_THAT(error("{tool_schemas} {tool_schemas}"), HasSubstr("stands twice"));
  EXPECT_THAT(error("{tool_schemas} }"), HasSubstr("a single brace"));
  EXPECT_THAT(error("{tool_schemas"), HasSubstr("a single brace"));
  EXPECT_THAT(
      ErrorOf([] { PromptTexts::FromEncoder("response_format_template = '{schema}!'", "e.py"); }),
      HasSubstr("text behind the schema"));
}

TEST(PromptTextsTest, OurOwnFile) {
  const PromptTexts texts = PromptTexts::FromJson(
      R"({"note": "n", "effort": {"low": "", "high": "H"}, "tools_before": "B", "tools_after": "A"})",
      "p.json");
  EXPECT_THAT(texts.Efforts(), ElementsAre(Effort::kLow, Effort::kHigh));
  EXPECT_EQ(texts.EffortText(Effort::kHigh), "H");
  EXPECT_EQ(texts.ToolsBefore(), "B");
  EXPECT_THROW(texts.ResponseFormatBefore(), Error);
  EXPECT_THROW(texts.EffortText(Effort::kMax), Error);
  EXPECT_THAT(texts.warnings(), IsEmpty());
  for (const auto& [json, message] : std::vector<std::pair<const char*, const char*>>{
           {"[]", "not a JSON object"},
           {"{", "not a JSON object"},
           {R"({"effort": {"huge": ""}})", "low, high and max only"},
           {R"({"effort": {"low": 1}})", "hold strings"},
           {R"({"effort": 1})", "has to be an object"},
           {R"({"tools_before": "x"})", "belong together"},
           {R"({"tools_before": 1, "tools_after": ""})", "has to be a string"},
           {R"({"tool": ""})", "not known"}}) {
    EXPECT_THAT(ErrorOf([&, text = json] { PromptTexts::FromJson(text, "p.json"); }),
                HasSubstr(message));
  }
}

TEST(PromptTextsTest, LoadTakesWhatTheFolderHas) {
  const test::TemporaryDirectory temporary;
  const std::filesystem::path& folder = temporary.path();
  std::filesystem::create_directories(folder / "encoding");
  EXPECT_THAT(PromptTexts::Load(folder).Efforts(), IsEmpty());
  std::ofstream(folder / "encoding" / "prompt_texts.json") << R"({"effort": {"high": "ours"}})";
  EXPECT_EQ(PromptTexts::Load(folder).EffortText(Effort::kHigh), "ours");
  std::ofstream(folder / "encoding" / "encoding_dsv4.py") << "REASONING_EFFORT_MAX = 'theirs'\n";
  EXPECT_EQ(PromptTexts::Load(folder).EffortText(Effort::kMax), "theirs");
}

TEST(PromptTextsTest, TheDefaultTextsAreComplete) {
  const PromptTexts texts = PromptTexts::FromJson(DefaultPromptTexts(), "the default texts");
  EXPECT_THAT(texts.Efforts(), ElementsAre(Effort::kLow, Effort::kHigh, Effort::kMax));
  EXPECT_THAT(std::string(texts.ToolsBefore()), HasSubstr("<｜DSML｜invoke name=\"$TOOL\">\n"));
  EXPECT_FALSE(texts.ToolsAfter().empty());
  EXPECT_FALSE(texts.ResponseFormatBefore().empty());
}

}  // namespace
}  // namespace toaster
