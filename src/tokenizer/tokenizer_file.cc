#include "tokenizer/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_json.h"

namespace toaster {
namespace {

using nlohmann::json;

constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxExpressions = 16;

class Reader {
 public:
  Reader(std::string_view text, const std::string& origin)
      : origin_(origin), json_(ReadTokenizerJson(text, origin)) {}

  TokenizerFile Run() {
    RequireNothing("truncation");
    RequireNothing("padding");
    CheckNormalizer();
    ReadPreTokenizer();
    CheckDecoder();
    CheckModel();
    ReadAddedTokens();
    ReadVocabulary();
    ReadMerges();
    return std::move(file_);
  }

 private:
  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{}: {}; get the file again", origin_, what));
  }
  [[noreturn]] void Unsupported(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: {}; only byte-level BPE after isolated splits is supported",
                            origin_, what));
  }

  /// A value for a message: its beginning, on one line.
  static std::string Show(const json& value) {
    std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    return text;
  }

  /// The member `name` of `object`; null if it is absent.
  const json& Field(const json& object, const char* name) const {
    static const json null;
    const auto found = object.find(name);
    return found == object.end() ? null : *found;
  }
  const json& Field(const char* name) const { return Field(json_.rest, name); }

  const std::string& TypeOf(const json& object, const std::string& where) const {
    if (!object.is_object()) Corrupt(where + " is no object");
    const json& type = Field(object, "type");
    if (!type.is_string()) Corrupt(where + ".type is no string");
    return type.get_ref<const std::string&>();
  }

  void RequireNothing(const char* name) const {
    if (!Field(name).is_null()) Unsupported(fmt::format("{} is {}", name, Show(Field(name))));
  }

  void CheckNormalizer() const {
    const json& normalizer = Field("normalizer");
    if (normalizer.is_null()) return;
    const std::string& type = TypeOf(normalizer, "normalizer");
    const json& parts = Field(normalizer, "normalizers");
    if (type == "Sequence" && parts.is_array() && parts.empty()) return;
    const bool sequence = type == "Sequence" && parts.is_array();
    Unsupported(fmt::format("normalizer of type \"{}\"",
                            ShortName(sequence ? TypeOf(parts[0], "normalizer part") : type)));
  }

  static std::string ShortName(const std::string& text) {
    const std::string shown = Show(text);
    return shown.size() >= 2 && shown.back() == '"' ? shown.substr(1, shown.size() - 2) : shown;
  }

  void RequireFlag(const json& object, const char* name, bool wanted, bool absent,
                   const std::string& where) const {
    const json& value = Field(object, name);
    if (value.is_null() ? absent == wanted : value == wanted) return;
    Unsupported(fmt::format("{}.{} is {}", where, name, Show(value)));
  }

  void ReadPreTokenizer() {
    const json& pre_tokenizer = Field("pre_tokenizer");
    if (pre_tokenizer.is_null()) Unsupported("pre_tokenizer is null");
    const std::string& type = TypeOf(pre_tokenizer, "pre_tokenizer");
    if (type != "Sequence") {
      ReadPreTokenizerPart(pre_tokenizer, "pre_tokenizer", /*last=*/true);
      return;
    }
    const json& parts = Field(pre_tokenizer, "pretokenizers");
    if (!parts.is_array() || parts.empty()) Corrupt("pre_tokenizer.pretokenizers is no list");
    if (parts.size() > kMaxExpressions) Unsupported("more than 16 pretokenizers");
    for (size_t i = 0; i < parts.size(); ++i) {
      ReadPreTokenizerPart(parts[i], fmt::format("pre_tokenizer.pretokenizers[{}]", i),
                           i + 1 == parts.size());
    }
  }

  void ReadPreTokenizerPart(const json& part, const std::string& where, bool last) {
    const std::string& type = TypeOf(part, where);
    if (type == "ByteLevel" && last) {
      RequireFlag(part, "add_prefix_space", false, /*absent=*/true, where);
      RequireFlag(part, "use_regex", false, /*absent=*/true, where);
      return;
    }
    if (type != "Split" || last)
      Unsupported(fmt::format("{} of type \"{}\"", where, ShortName(type)));
    const json& behavior = Field(part, "behavior");
    if (behavior != "Isolated")
      Unsupported(fmt::format("{}.behavior is {}", where, Show(behavior)));
    RequireFlag(part, "invert", false, /*absent=*/false, where);
    const json& pattern = Field(part, "pattern");
    const json& expression = pattern.is_object() ? Field(pattern, "Regex") : pattern;
    if (!expression.is_string() || pattern.size() != 1)
      Unsupported(fmt::format("{}.pattern is {}", where, Show(pattern)));
    file_.expressions.push_back(expression.get<std::string>());
  }

  void CheckDecoder() const {
    const json& decoder = Field("decoder");
    if (decoder.is_null()) Unsupported("decoder is null");
    const std::string& type = TypeOf(decoder, "decoder");
    if (type != "ByteLevel") Unsupported(fmt::format("decoder of type \"{}\"", ShortName(type)));
  }

  void CheckModel() const {
    const json& model = Field("model");
    const std::string& type = TypeOf(model, "model");
    if (type != "BPE") Unsupported(fmt::format("model of type \"{}\"", ShortName(type)));
    const json& dropout = Field(model, "dropout");
    if (!dropout.is_null() && dropout != 0)
      Unsupported(fmt::format("model.dropout is {}", Show(dropout)));
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& value = Field(model, name);
      if (!value.is_null() &&
          value != "")  // NOLINT(readability-container-size-empty): JSON's means another thing
        Unsupported(fmt::format("model.{} is {}", name, Show(value)));
    }
    RequireFlag(model, "byte_fallback", false, /*absent=*/false, "model");
    RequireFlag(model, "ignore_merges", false, /*absent=*/false, "model");
    if (!json_.has_vocab) Corrupt("model.vocab is missing");
    if (!json_.has_merges) Corrupt("model.merges is missing");
  }

  int32_t CheckId(int64_t id, const std::string& where) const {
    if (id < 0 || id >= kMaxTokenIds)
      Corrupt(fmt::format("{}: token id {} is not in [0, {})", where, id, kMaxTokenIds));
    return static_cast<int32_t>(id);
  }

  void ReadAddedTokens() {
    const json& tokens = Field("added_tokens");
    if (tokens.is_null()) return;
    if (!tokens.is_array()) Corrupt("added_tokens is no list");
    std::unordered_set<std::string> texts;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::string where = fmt::format("added_tokens[{}]", i);
      const json& token = tokens[i];
      if (!token.is_object()) Corrupt(where + " is no object");
      const json& id = Field(token, "id");
      const json& text = Field(token, "content");
      const json& special = Field(token, "special");
      if (!id.is_number_integer() || id > INT64_MAX) Corrupt(where + ".id is no token id");
      if (!text.is_string()) Corrupt(where + ".content is no string");
      if (!special.is_boolean()) Corrupt(where + ".special is neither true nor false");
      AddedToken added = {CheckId(id.get<int64_t>(), where), text.get<std::string>(),
                          special.get<bool>()};
      if (added.text.empty() || added.text.size() > kMaxTokenBytes)
        Corrupt(fmt::format("{}.content has {} bytes", where, added.text.size()));
      for (const char* name : {"single_word", "lstrip", "rstrip"})
        RequireFlag(token, name, false, /*absent=*/false, where);
      if (!texts.insert(added.text).second)
        Corrupt(fmt::format("{}: {} is listed twice", where, Show(text)));
      added_ids_.insert(added.id);
      if (!Store(added.id, added.text))
        Corrupt(fmt::format("{}: id {} is listed twice", where, added.id));
      file_.added_tokens.push_back(std::move(added));
    }
    added_texts_ = std::move(texts);
  }

  /// False if the id is taken.
  bool Store(int32_t id, std::string bytes) {
    const auto index = static_cast<size_t>(id);
    if (index >= file_.tokens.size()) file_.tokens.resize(index + 1);
    if (!file_.tokens[index].empty()) return false;
    file_.tokens[index] = std::move(bytes);
    return true;
  }

  void ReadVocabulary() {
    static const ByteAlphabet alphabet;
    file_.byte_tokens.fill(-1);
    ids_.reserve(json_.vocab.size());
    for (const auto& [text, number] : json_.vocab) {
      const auto refuse = [&, &token = text](const std::string& what) {
        Corrupt(fmt::format("model.vocab: {} {}", Show(token), what));
      };
      const int32_t id = CheckId(number, "model.vocab");
      if (text.empty() || text.size() > 2 * kMaxTokenBytes)
        refuse(fmt::format("has {} bytes", text.size()));
      if (!ids_.emplace(text, id).second) refuse("appears twice");
      if (added_ids_.contains(id)) {
        if (file_.tokens[static_cast<size_t>(id)] != text)
          refuse(fmt::format("has id {}, which is another token in added_tokens", id));
        continue;
      }
      if (added_texts_.contains(text)) refuse("has another id in added_tokens");
      // What is not written in the byte alphabet can't come out of merges: it stands for itself.
      std::optional<std::string> bytes = alphabet.Decode(text);
      if (bytes && bytes->size() == 1) file_.byte_tokens[static_cast<uint8_t>((*bytes)[0])] = id;
      if (!Store(id, bytes ? *bytes : text))
        refuse(fmt::format("has id {}, which another token has, too", id));
    }
    for (size_t byte = 0; byte < file_.byte_tokens.size(); ++byte) {
      if (file_.byte_tokens[byte] < 0)
        Unsupported(fmt::format("model.vocab has no token for byte 0x{:02X}", byte));
    }
  }

  /// The id of a part or result of merge `i`, which the vocabulary has to have.
  int32_t MergedToken(std::string_view token, size_t i) const {
    const auto found = ids_.find(token);
    if (found == ids_.end())
      Corrupt(fmt::format("model.merges: entry {}: {} is not in the vocabulary", i, Show(token)));
    // Otherwise plain text could turn into a control token.
    if (added_ids_.contains(found->second)) {
      Unsupported(
          fmt::format("model.merges: entry {} involves the added token {}", i, Show(token)));
    }
    return found->second;
  }

  void ReadMerges() {
    std::vector<std::pair<uint64_t, size_t>> pairs;  // with the places of the entries
    pairs.reserve(json_.merges.size());
    file_.merges.reserve(json_.merges.size());
    std::string both;
    for (size_t i = 0; i < json_.merges.size(); ++i) {
      const auto& [left, right] = json_.merges[i];
      both.assign(left).append(right);
      const Merge merge = {MergedToken(left, i), MergedToken(right, i), MergedToken(both, i)};
      pairs.emplace_back(
          static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right), i);
      file_.merges.push_back(merge);
    }
    std::sort(pairs.begin(), pairs.end());
    for (size_t i = 1; i < pairs.size(); ++i) {
      if (pairs[i].first == pairs[i - 1].first)
        Corrupt(fmt::format("model.merges: entry {} appears twice", pairs[i].second));
    }
  }

  const std::string& origin_;
  TokenizerJson json_;
  TokenizerFile file_;
  std::unordered_map<std::string_view, int32_t> ids_;  ///< of the spellings in json_.vocab
  std::unordered_set<int32_t> added_ids_;
  std::unordered_set<std::string> added_texts_;
};

}  // namespace

TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& origin) {
  return Reader(text, origin).Run();
}

}  // namespace toaster
