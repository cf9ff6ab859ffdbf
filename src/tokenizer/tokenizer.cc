#include "tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <array>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/mapped_file.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/byte_pairs.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/split_words.h"
#include "tokenizer/tokenizer_file.h"
#include "tokenizer/whole_words.h"

namespace toaster {
namespace {

/// The largest tokenizer.json in use has some 35 MB; DeepSeek V4's 6 MB.
constexpr size_t kMaxFileBytes = size_t{256} << 20;

constexpr int32_t kFirstByteToken = 3;

constexpr std::array kByteControlTokens = {
    kUserToken,   kAssistantToken, kThinkToken,     kEndThinkToken, kDsmlToken,
    kActionToken, kQueryToken,     kAuthorityToken, kDomainToken,   kReadUrlToken,
    kTitleToken,  kFimBeginToken,  kFimHoleToken,   kFimEndToken,   kLatestReminderToken};

}  // namespace

struct Tokenizer::Parts {
  Parts(TokenizerFile file, std::string name)
      : origin(std::move(name)),
        tokens(std::move(file.tokens)),
        splitter(file.expressions, origin),
        byte_pairs(file.byte_tokens, file.merges),
        whole_words(tokens, file.merges, byte_pairs),
        matcher(file.added_tokens) {
    for (const AddedToken& token : file.added_tokens) {
      control_tokens.emplace(tokens[static_cast<size_t>(token.id)], token.id);
      control_ids.insert(token.id);
    }
  }

  void EncodePlain(std::string_view text, std::vector<int32_t>& result) const {
    std::vector<uint32_t> ends;
    splitter.Split(text, ends);
    uint32_t begin = 0;
    for (const uint32_t end : ends) {
      const std::string_view word = text.substr(begin, end - begin);
      if (const std::optional<int32_t> whole = whole_words.Find(word)) {
        result.push_back(*whole);
      } else {
        byte_pairs.Encode(word, result);
      }
      begin = end;
    }
  }

  std::string origin;
  std::vector<std::string> tokens;  ///< the bytes of every id
  WordSplitter splitter;
  BytePairs byte_pairs;
  WholeWords whole_words;
  AddedTokenMatcher matcher;
  std::unordered_map<std::string_view, int32_t> control_tokens;  ///< views of `tokens`
  std::unordered_set<int32_t> control_ids;
};

Tokenizer Tokenizer::Load(const std::filesystem::path& path) {
  const std::filesystem::path file =
      std::filesystem::is_directory(path) ? path / "tokenizer.json" : path;
  const MappedFile mapped(file);
  if (mapped.bytes().size() > kMaxFileBytes) {
    throw Error(ErrorCode::kUnsupported, fmt::format("{}: {} bytes are too many for a tokenizer",
                                                     file.string(), mapped.bytes().size()));
  }
  return FromJson({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()},
                  file.string());
}

Tokenizer Tokenizer::FromJson(std::string_view text, const std::string& origin) {
  return Tokenizer(std::make_shared<const Parts>(ParseTokenizerFile(text, origin), origin));
}

Tokenizer Tokenizer::Bytes(int64_t vocab_size) {
  if (vocab_size < kMinByteVocabulary) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("a vocabulary of {} tokens is too small for the byte tokenizer, which "
                            "needs {}; give the model a tokenizer.json or use token ids",
                            vocab_size, kMinByteVocabulary));
  }
  if (vocab_size > kMaxTokenIds) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("a vocabulary of {} tokens is too large; at most {}", vocab_size,
                            kMaxTokenIds));
  }
  TokenizerFile file;
  file.added_tokens = {{0, std::string(kBosToken), true},
                       {1, std::string(kEosToken), true},
                       {2, std::string(kPadToken), true}};
  const auto first_control = static_cast<int32_t>(kMinByteVocabulary);
  if (vocab_size - first_control >= static_cast<int64_t>(kByteControlTokens.size())) {
    for (const std::string_view text : kByteControlTokens) {
      const auto id = static_cast<int32_t>(file.added_tokens.size()) - kFirstByteToken;
      file.added_tokens.push_back({first_control + id, std::string(text), true});
    }
  }
  file.tokens.resize(static_cast<size_t>(vocab_size));
  for (const AddedToken& token : file.added_tokens)
    file.tokens[static_cast<size_t>(token.id)] = token.text;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const int32_t id = kFirstByteToken + byte;
    file.byte_tokens[static_cast<size_t>(byte)] = id;
    file.tokens[static_cast<size_t>(id)] = std::string(1, static_cast<char>(byte));
  }
  return Tokenizer(std::make_shared<const Parts>(std::move(file), "byte tokenizer"));
}

std::span<const std::string_view> Tokenizer::ByteControlTokens() { return kByteControlTokens; }

Tokenizer Tokenizer::ForModel(const std::filesystem::path& folder, int64_t vocab_size) {
  return std::filesystem::exists(folder / "tokenizer.json") ? Load(folder) : Bytes(vocab_size);
}

void Tokenizer::Encode(std::string_view text, ControlTokens control,
                       std::vector<int32_t>& tokens) const {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a text of {} bytes is too long to tokenize at once; at most {}",
                            text.size(), kMaxTextBytes));
  }
  if (control == ControlTokens::kAsText) {
    parts_->EncodePlain(text, tokens);
    return;
  }
  size_t position = 0;
  while (const auto match = parts_->matcher.Find(text, position)) {
    parts_->EncodePlain(text.substr(position, match->begin - position), tokens);
    tokens.push_back(match->id);
    position = match->end;
  }
  parts_->EncodePlain(text.substr(position), tokens);
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, ControlTokens control) const {
  std::vector<int32_t> tokens;
  Encode(text, control, tokens);
  return tokens;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= parts_->tokens.size()) return {};
  return parts_->tokens[static_cast<size_t>(id)];
}

std::string Tokenizer::Decode(std::span<const int32_t> tokens) const {
  std::string text;
  for (const int32_t id : tokens) text += TokenBytes(id);
  return text;
}

std::optional<int32_t> Tokenizer::ControlToken(std::string_view text) const {
  const auto found = parts_->control_tokens.find(text);
  if (found == parts_->control_tokens.end()) return std::nullopt;
  return found->second;
}

int32_t Tokenizer::RequireControlToken(std::string_view text) const {
  if (const std::optional<int32_t> id = ControlToken(text)) return *id;
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: has no token {}, which the prompt needs", parts_->origin, text));
}

bool Tokenizer::IsControlToken(int32_t id) const { return parts_->control_ids.contains(id); }

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(parts_->tokens.size()); }

const std::string& Tokenizer::origin() const { return parts_->origin; }

}  // namespace toaster
