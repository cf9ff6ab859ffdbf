#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/check.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_file.h"

namespace toaster {
namespace {

using nlohmann::ordered_json;

ordered_json AddedTokenJson(const AddedToken& token) {
  return {{"id", token.id},  {"content", token.text}, {"single_word", false},    {"lstrip", false},
          {"rstrip", false}, {"normalized", false},   {"special", token.special}};
}

std::string Quoted(const std::string& text) { return ordered_json(text).dump(); }

/// Everything but the two tables, which would take long as JSON values.
ordered_json Frame(const TokenizerFile& file) {
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : file.added_tokens) added.push_back(AddedTokenJson(token));
  ordered_json splits = ordered_json::array();
  for (const std::string& expression : file.expressions) {
    splits.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", expression}}},
                      {"behavior", "Isolated"},
                      {"invert", false}});
  }
  const auto byte_level = [](bool prefix_space, bool trim, bool regex) {
    return ordered_json{{"type", "ByteLevel"},
                        {"add_prefix_space", prefix_space},
                        {"trim_offsets", trim},
                        {"use_regex", regex}};
  };
  splits.push_back(byte_level(false, true, false));
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", ordered_json::array()}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", splits}}},
          {"post_processor", byte_level(true, false, true)},
          {"decoder", byte_level(true, true, true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false}}}};
}

}  // namespace

std::string TokenizerFileText(const TokenizerFile& file) {
  const ByteAlphabet alphabet;
  std::vector<bool> reachable(file.tokens.size()), added(file.tokens.size());
  for (const int32_t id : file.byte_tokens) reachable[static_cast<size_t>(id)] = true;
  for (const Merge& merge : file.merges) reachable[static_cast<size_t>(merge.result)] = true;
  std::unordered_set<std::string_view> texts;
  for (const AddedToken& token : file.added_tokens) {
    added[static_cast<size_t>(token.id)] = true;
    texts.insert(token.text);
  }
  size_t regular_end = 0;
  for (size_t id = 0; id < file.tokens.size(); ++id) {
    if (file.tokens[id].empty() || added[id]) continue;
    CHECK(reachable[id], "token {} comes from no merge", id);
    CHECK(texts.insert(file.tokens[id]).second, "token {} has the text of another", id);
    regular_end = id + 1;
  }

  std::string vocabulary;
  // Other readers number added tokens from the vocabulary's size on, unless it has them.
  for (size_t id = 0; id < regular_end; ++id) {
    if (file.tokens[id].empty()) continue;
    fmt::format_to(std::back_inserter(vocabulary), "{}\n   {}: {}", vocabulary.empty() ? "" : ",",
                   Quoted(added[id] ? file.tokens[id] : alphabet.Encode(file.tokens[id])), id);
  }
  std::string merges;
  for (const Merge& merge : file.merges) {
    const auto part = [&](int32_t id) {
      return alphabet.Encode(file.tokens[static_cast<size_t>(id)]);
    };
    fmt::format_to(std::back_inserter(merges), "{}\n   {}", merges.empty() ? "" : ",",
                   Quoted(part(merge.left) + " " + part(merge.right)));
  }
  std::string text = Frame(file).dump(1);
  const size_t end = text.rfind("\n }\n}");  // of the object "model", the last of the frame
  CHECK(end != text.npos);
  text.resize(end);
  return text + ",\n  \"vocab\": {" + vocabulary + "\n  },\n  \"merges\": [" + merges +
         "\n  ]\n }\n}\n";
}

}  // namespace toaster
