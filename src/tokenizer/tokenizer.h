#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/utf8.h"

namespace toaster {

/// Whether the texts of control tokens (<｜User｜>, <think>, ...) in the input become those tokens.
enum class ControlTokens {
  kAsText,      ///< they are text like any other: for everything that users, tools and files say
  kRecognised,  ///< they become the tokens: for text the program itself wrote, and for tools
};

/// Text to token ids and back: byte-level BPE as in a checkpoint's tokenizer.json, or plain bytes
/// for a checkpoint that has none.
///
/// Tokens tile their text: the bytes of the tokens of Encode(text), one after the other, are
/// `text`, whatever bytes it holds, so a token's offset is the sum of the lengths before it. With
/// kAsText no control token ever comes out.
///
/// Immutable, safe to use from any thread; a copy shares everything.
class Tokenizer {
 public:
  /// From a tokenizer.json or a folder that holds one. Throws Error(kNotFound) if there is none,
  /// and what FromJson() throws.
  static Tokenizer Load(const std::filesystem::path& path);

  /// From the text of a tokenizer.json; `origin` names it in messages. Throws Error(kCorruptFile)
  /// or Error(kUnsupported): see ParseTokenizerFile().
  static Tokenizer FromJson(std::string_view text, const std::string& origin);

  /// One token per byte. Ids: 0 BOS, 1 EOS, 2 padding, 3 + b for byte b; from 259 on, if all of
  /// them fit into the vocabulary, the control tokens of the prompt format in the order of
  /// ByteControlTokens(). Ids beyond decode to nothing. Throws Error(kUnsupported) for fewer than
  /// kMinByteVocabulary ids or more than any tokenizer can have.
  static Tokenizer Bytes(int64_t vocab_size);
  static constexpr int64_t kMinByteVocabulary = 259;
  /// The control tokens of Bytes() from id 259 on.
  static std::span<const std::string_view> ByteControlTokens();

  /// Load(folder) if the folder has a tokenizer.json, Bytes(vocab_size) if not.
  static Tokenizer ForModel(const std::filesystem::path& folder, int64_t vocab_size);

  /// Appends the tokens of `text` to `tokens`. Throws Error(kInvalidArgument) for more than
  /// kMaxTextBytes.
  void Encode(std::string_view text, ControlTokens control, std::vector<int32_t>& tokens) const;
  std::vector<int32_t> Encode(std::string_view text,
                              ControlTokens control = ControlTokens::kAsText) const;
  static constexpr size_t kMaxTextBytes = size_t{1} << 28;

  /// The bytes of a token: possibly part of a character, for a control token its text, for an id
  /// the tokenizer does not have nothing. Valid as long as the tokenizer.
  std::string_view TokenBytes(int32_t id) const;
  /// The bytes of all tokens; see TokenDecoder for text as it arrives.
  std::string Decode(std::span<const int32_t> tokens) const;

  /// The id of the control token with this text, for example "<think>".
  std::optional<int32_t> ControlToken(std::string_view text) const;
  /// The same where it has to exist. Throws Error(kUnsupported) naming the token if it does not.
  int32_t RequireControlToken(std::string_view text) const;
  /// True for ids that stand for themselves and never come from plain text.
  bool IsControlToken(int32_t id) const;

  /// All ids are below it.
  int64_t vocab_size() const;
  /// The file it came from, or "byte tokenizer".
  const std::string& origin() const;

 private:
  struct Parts;
  explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}
  std::shared_ptr<const Parts> parts_;
};

/// Turns tokens into text as they arrive; see Utf8Buffer for what is held back and replaced.
class TokenDecoder {
 public:
  explicit TokenDecoder(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  std::string Push(int32_t token) { return buffer_.Push(tokenizer_.TokenBytes(token)); }
  std::string Finish() { return buffer_.Finish(); }

 private:
  Tokenizer tokenizer_;
  Utf8Buffer buffer_;
};

}  // namespace toaster
