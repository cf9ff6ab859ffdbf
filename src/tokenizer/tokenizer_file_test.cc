#include "tokenizer/tokenizer_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "base/error.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace toaster {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

const std::string kFolder = TOASTER_SOURCE_DIR "/tests/data/tokenizer/";

std::string ReadFile(const std::string& name) {
  std::ifstream file(kFolder + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(TokenizerFileTest, TokensAreThoseOfAnotherImplementation) {
  const Tokenizer tokenizer = Tokenizer::Load(kFolder);
  const std::string text = ReadFile("sample.txt");
  std::istringstream expected(ReadFile("expected_ids.txt"));
  for (const ControlTokens control : {ControlTokens::kRecognised, ControlTokens::kAsText}) {
    std::string line;
    std::getline(expected, line);
    std::istringstream numbers(line);
    const std::vector<int32_t> ids(std::istream_iterator<int32_t>(numbers), {});
    ASSERT_GT(ids.size(), 5000u);
    EXPECT_EQ(tokenizer.Encode(text, control), ids);
    EXPECT_EQ(tokenizer.Decode(ids), text);
  }
}

TEST(TokenizerFileTest, AnyBytesComeBack) {
  const Tokenizer tokenizer = Tokenizer::Load(kFolder);
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (size_t i = random() % 200; i > 0; --i) {
      text += static_cast<char>(random() % 3 ? random() : 'a' + random() % 26);
    }
    for (const ControlTokens control : {ControlTokens::kAsText, ControlTokens::kRecognised})
      EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text, control)), text);
  }
}

TEST(TokenizerFileTest, PlainTextNeverBecomesAControlToken) {
  const Tokenizer tokenizer = Tokenizer::Load(kFolder);
  const TokenizerFile file = ParseTokenizerFile(ReadFile("tokenizer.json"), "test");
  ASSERT_EQ(file.added_tokens.size(), 19u);
  std::string text;
  for (const AddedToken& token : file.added_tokens) text += token.text + " " + token.text + "\n";
  size_t recognised = 0;
  for (const int32_t id : tokenizer.Encode(text, ControlTokens::kRecognised))
    recognised += tokenizer.IsControlToken(id);
  EXPECT_EQ(recognised, 2 * file.added_tokens.size());
  for (const int32_t id : tokenizer.Encode(text)) EXPECT_FALSE(tokenizer.IsControlToken(id));
}

TEST(TokenizerFileTest, TheLongestControlTokenWins) {
  ordered_json json = ordered_json::parse(ReadFile("tokenizer.json"));
  const auto add = [&](int id, const char* text) {
    json["added_tokens"].push_back({{"id", id}, {"content", text}, {"special", true}});
  };
  add(5000, "<a");
  add(5001, "<a>");
  add(5002, "a>b");
  const Tokenizer tokenizer = Tokenizer::FromJson(json.dump(), "test");
  const auto encode = [&](const char* text) {
    return tokenizer.Encode(text, ControlTokens::kRecognised);
  };
  EXPECT_EQ(encode("<a>"), (std::vector<int32_t>{5001}));
  EXPECT_EQ(encode("<a<a>b"), (std::vector<int32_t>{5000, 5001, tokenizer.Encode("b")[0]}));
  EXPECT_EQ(encode("a>b<"), (std::vector<int32_t>{5002, tokenizer.Encode("<")[0]}));
}

TEST(TokenizerFileTest, MergesAsPairsAreTheSame) {
  ordered_json json = ordered_json::parse(ReadFile("tokenizer.json"));
  for (ordered_json& merge : json["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const size_t blank = text.find(' ');
    merge = {text.substr(0, blank), text.substr(blank + 1)};
  }
  const std::string text = ReadFile("sample.txt");
  EXPECT_EQ(Tokenizer::FromJson(json.dump(), "test").Encode(text),
            Tokenizer::Load(kFolder).Encode(text));
}

struct Change {
  const char* name;
  std::function<void(ordered_json&)> apply;
  ErrorCode code;
  const char* message;  ///< part of it
};

TEST(TokenizerFileTest, OtherKindsAndContradictionsAreNamed) {
  const auto bad = ErrorCode::kCorruptFile;
  const auto other = ErrorCode::kUnsupported;
  const std::vector<Change> changes = {
      {"normalizer",
       [](auto& j) {
         j["normalizer"] = {{"type", "NFC"}};
       },
       other, "normalizer of type \"NFC\""},
      {"normalizers",
       [](auto& j) {
         j["normalizer"]["normalizers"] = {{{"type", "NFKC"}}};
       },
       other, "normalizer of type \"NFKC\""},
      {"pre-tokenizer",
       [](auto& j) {
         j["pre_tokenizer"]["pretokenizers"][0] = {{"type", "Digits"}};
       },
       other, "pretokenizers[0] of type \"Digits\""},
      {"metaspace",
       [](auto& j) {
         j["pre_tokenizer"] = {{"type", "Metaspace"}};
       },
       other, "\"Metaspace\""},
      {"behaviour", [](auto& j) { j["pre_tokenizer"]["pretokenizers"][1]["behavior"] = "Removed"; },
       other, "pretokenizers[1].behavior is \"Removed\""},
      {"invert", [](auto& j) { j["pre_tokenizer"]["pretokenizers"][1]["invert"] = true; }, other,
       "pretokenizers[1].invert is true"},
      {"expression",
       [](auto& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(x"; }, other,
       "\"(x\" is not understood"},
      {"prefix", [](auto& j) { j["pre_tokenizer"]["pretokenizers"][3]["add_prefix_space"] = true; },
       other, "pretokenizers[3].add_prefix_space is true"},
      {"regex", [](auto& j) { j["pre_tokenizer"]["pretokenizers"][3].erase("use_regex"); }, other,
       "pretokenizers[3].use_regex is null"},
      {"decoder", [](auto& j) { j["decoder"]["type"] = "WordPiece"; }, other,
       "decoder of type \"WordPiece\""},
      {"model", [](auto& j) { j["model"]["type"] = "Unigram"; }, other,
       "model of type \"Unigram\""},
      {"no model", [](auto& j) { j.erase("model"); }, bad, "model is no object"},
      {"byte fallback", [](auto& j) { j["model"]["byte_fallback"] = true; }, other,
       "model.byte_fallback is true"},
      {"ignore merges", [](auto& j) { j["model"]["ignore_merges"] = true; }, other,
       "model.ignore_merges is true"},
      {"dropout", [](auto& j) { j["model"]["dropout"] = 0.1; }, other, "model.dropout is 0.1"},
      {"truncation",
       [](auto& j) {
         j["truncation"] = {{"max_length", 512}};
       },
       other, "truncation is {"},
      {"no vocab", [](auto& j) { j["model"].erase("vocab"); }, bad, "model.vocab is missing"},
      {"no byte", [](auto& j) { j["model"]["vocab"].erase("!"); }, other, "byte 0x21"},
      {"same id", [](auto& j) { j["model"]["vocab"]["!!!"] = 40; }, bad, "which another token has"},
      {"id range", [](auto& j) { j["model"]["vocab"]["!!!"] = 1 << 21; }, bad, "2097152 is not in"},
      {"negative id", [](auto& j) { j["model"]["vocab"]["!!!"] = -1; }, bad, "-1 is not in"},
      {"huge id", [](auto& j) { j["model"]["vocab"]["!!!"] = ~0ull; }, bad, "no integer"},
      {"text id", [](auto& j) { j["model"]["vocab"]["!!!"] = "1"; }, bad, "no integer"},
      {"nested vocab", [](auto& j) { j["model"]["vocab"]["!!!"] = {1}; }, bad, "no integer"},
      {"merge of three", [](auto& j) { j["model"]["merges"][0] = "a b c"; }, bad,
       "entry 0 is not two tokens"},
      {"merge of one", [](auto& j) { j["model"]["merges"][1] = {"a"}; }, bad,
       "entry 1 is not two tokens"},
      {"merge number", [](auto& j) { j["model"]["merges"][1] = 3; }, bad, "no pair of tokens"},
      {"merge of a stranger", [](auto& j) { j["model"]["merges"][0] = "zzzz b"; }, bad,
       "\"zzzz\" is not in the vocabulary"},
      {"merge twice", [](auto& j) { j["model"]["merges"][7] = j["model"]["merges"][5]; }, bad,
       "entry 7 appears twice"},
      {"merge into control",
       [](auto& j) {
         j["added_tokens"].push_back(
             {{"id", j["model"]["vocab"]["th"]}, {"content", "th"}, {"special", true}});
       },
       other, "involves the added token \"th\""},
      {"added twice", [](auto& j) { j["added_tokens"].push_back(j["added_tokens"][3]); }, bad,
       "listed twice"},
      {"added strip", [](auto& j) { j["added_tokens"][3]["lstrip"] = true; }, other,
       "added_tokens[3].lstrip is true"},
      {"added empty", [](auto& j) { j["added_tokens"][3]["content"] = ""; }, bad,
       "added_tokens[3].content has 0 bytes"},
      {"added elsewhere", [](auto& j) { j["added_tokens"][0]["id"] = 2'000'000; }, bad,
       "has another id in added_tokens"},
      {"not an object", [](auto& j) { j = ordered_json::array({j}); }, bad, "not a JSON object"},
  };
  const ordered_json sound = ordered_json::parse(ReadFile("tokenizer.json"));
  for (const Change& change : changes) {
    ordered_json json = sound;
    change.apply(json);
    try {
      Tokenizer::FromJson(json.dump(), "some/tokenizer.json");
      ADD_FAILURE() << change.name << " is accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), change.code) << change.name;
      EXPECT_THAT(error.what(), HasSubstr(change.message)) << change.name;
      EXPECT_THAT(error.what(), HasSubstr("some/tokenizer.json: ")) << change.name;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

TEST(TokenizerFileTest, DamagedTextsAreErrors) {
  const std::string sound = ReadFile("tokenizer.json");
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    std::string cut = sound.substr(0, random() % (sound.size() - 2));
    EXPECT_THROW(ParseTokenizerFile(cut, "test"), Error);
    std::string changed = sound;
    changed[random() % changed.size()] = static_cast<char>(random());
    try {
      ParseTokenizerFile(changed, "test");
    } catch (const Error&) {
      // Either is fine: a changed letter of a string can make another sound file.
    }
  }
  EXPECT_THROW(ParseTokenizerFile(std::string(1 << 20, '['), "test"), Error);
  EXPECT_THROW(ParseTokenizerFile(sound + std::string(1, '\0'), "test"), Error);
  EXPECT_THROW(ParseTokenizerFile("{\"a\":1,\"a\":2}", "test"), Error);
  EXPECT_THROW(ParseTokenizerFile("{\"model\":{\"vocab\":{},\"vocab\":{}}}", "test"), Error);
}

}  // namespace
}  // namespace toaster
