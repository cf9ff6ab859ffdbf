#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/conversation.h"

namespace toaster {

/// The fixed texts of the prompt format (chat-format.md 1), which come with the checkpoint: from
/// the string constants of its encoding/encoding_dsv4.py, or from a file of ours of the same shape,
/// encoding/prompt_texts.json (docs/formats/prompt_texts.md). A checkpoint without them works until
/// a prompt needs one.
class PromptTexts {
 public:
  /// No texts; `origin` is where they were looked for.
  explicit PromptTexts(std::string origin) : origin_(std::move(origin)) {}

  /// Reads what the checkpoint in `folder` ships. Throws Error(kCorruptFile) or Error(kUnsupported)
  /// naming file and constant for a file that is there and can't be understood.
  static PromptTexts Load(const std::filesystem::path& folder);
  /// From the text of an encoding_dsv4.py.
  static PromptTexts FromEncoder(std::string_view python, const std::string& origin);
  /// From the text of a prompt_texts.json.
  static PromptTexts FromJson(std::string_view json, const std::string& origin);

  /// The text that this effort puts in front of a thinking-mode conversation, often empty. Throws
  /// Error(kInvalidArgument) for an effort this checkpoint's encoder does not accept, and
  /// Error(kUnsupported) if the checkpoint has no texts to tell.
  std::string_view EffortText(Effort effort) const;
  /// Before and after the tool schemas; before the schema of a response format. Throw
  /// Error(kUnsupported) if the checkpoint has no such text.
  std::string_view ToolsBefore() const { return Need(tools_before_, "tools"); }
  std::string_view ToolsAfter() const { return Need(tools_after_, "tools"); }
  std::string_view ResponseFormatBefore() const {
    return Need(response_format_before_, "response formats");
  }

  /// The efforts EffortText() accepts, besides none.
  std::vector<Effort> Efforts() const;
  /// One line for every constant that no known revision of the vendor's encoder has. Texts of our
  /// own JSON file bring none.
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::string& origin() const { return origin_; }

 private:
  std::string_view Need(const std::optional<std::string>& text, const char* what) const;
  void CheckDigest(std::string_view name, const std::string& text,
                   std::initializer_list<std::string_view> known);

  std::string origin_;
  std::map<Effort, std::string> efforts_;  ///< by what is asked for
  std::optional<std::string> tools_before_, tools_after_, response_format_before_;
  std::vector<std::string> warnings_;
};

/// A prompt_texts.json for models that are trained here, with texts for everything.
std::string_view DefaultPromptTexts();

}  // namespace toaster
