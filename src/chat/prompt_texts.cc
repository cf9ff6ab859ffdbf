#include "chat/prompt_texts.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "chat/python_constants.h"
#include "tokenizer/special_tokens.h"

namespace toaster {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;

// SHA-256 of the known revisions' texts (chat-format.md 1).
constexpr std::string_view kEffortA =
    "f7a24f3b3050d4a83781e9b755b316aae2ec1d9dc87562541d90bcb04d7350f7";
constexpr std::string_view kEffortB =
    "53fb31b8392ec5b4a926481943efc67636748f137c1a49d493a7af4d4fa55d2c";
constexpr std::string_view kToolsBefore =
    "c7c9042638154a237b5d1bd48be772374a35a4d24c5cacfd1ffbd92703da329c";
constexpr std::string_view kToolsAfter =
    "690702850fe256512cb1ee67c4e436ecb3e735c71ebee77ca45ff357a75fb5a7";
constexpr std::string_view kResponseFormatBefore =
    "5200f58413f49f3957c43beddbc97bead023232cb5934fad0c1997c30c139112";

std::string Sha256(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1)
    throw Error(ErrorCode::kUnsupported, "this machine's libcrypto refuses to compute SHA-256");
  std::string hexadecimal;
  for (unsigned i = 0; i < length; ++i) hexadecimal += fmt::format("{:02x}", digest[i]);
  return hexadecimal;
}

/// The template of str.format() filled, up to and behind the placeholder `split`.
std::pair<std::string, std::string> FillTemplate(std::string_view text, std::string_view split,
                                                 const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kUnsupported, fmt::format("{}: {}", where, what));
  };
  const std::map<std::string_view, std::string_view> known = {
      {"dsml_token", kDsmlToken},
      {"thinking_start_token", kThinkToken},
      {"thinking_end_token", kEndThinkToken}};
  std::string before, after;
  bool seen = false;
  while (!text.empty()) {
    std::string& part = seen ? after : before;
    const size_t brace = std::min(text.find_first_of("{}"), text.size());
    part += text.substr(0, brace);
    text.remove_prefix(brace);
    if (text.size() > 1 && text[0] == text[1]) {
      part += text[0];
      text.remove_prefix(2);
      continue;
    }
    if (text.empty()) break;
    const size_t end = text.find('}');
    if (text[0] == '}' || end == text.npos) refuse("a single brace");
    const std::string_view name = text.substr(1, end - 1);
    if (name == split) {
      if (seen) refuse(fmt::format("{{{}}} stands twice", split));
      seen = true;
    } else if (const auto found = known.find(name); found != known.end()) {
      part += found->second;
    } else {
      refuse(fmt::format("the placeholder {{{}}} is unknown", name.substr(0, 40)));
    }
    text.remove_prefix(end + 1);
  }
  if (!seen) refuse(fmt::format("has no placeholder {{{}}}", split));
  return {std::move(before), std::move(after)};
}

}  // namespace

PromptTexts PromptTexts::Load(const std::filesystem::path& folder) {
  const std::filesystem::path encoding = folder / "encoding";
  const std::filesystem::path python = encoding / "encoding_dsv4.py";
  const std::filesystem::path ours = encoding / "prompt_texts.json";
  const bool vendor = std::filesystem::exists(python);
  if (!vendor && !std::filesystem::exists(ours)) return PromptTexts(encoding.string());
  const std::filesystem::path& path = vendor ? python : ours;
  const MappedFile file(path);
  if (file.bytes().size() > kMaxFileBytes) {
    throw Error(ErrorCode::kUnsupported, fmt::format("{}: {} bytes are too many for prompt texts",
                                                     path.string(), file.bytes().size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  return vendor ? FromEncoder(text, path.string()) : FromJson(text, path.string());
}

PromptTexts PromptTexts::FromEncoder(std::string_view python, const std::string& origin) {
  const PythonConstants constants = ReadPythonConstants(python, origin);
  PromptTexts texts(origin);
  // A single string belongs to the preview's levels, a table to those of 0731 and later.
  const auto table =
      std::find_if(constants.tables.begin(), constants.tables.end(), [](const auto& entry) {
        return entry.first.rfind("REASONING_EFFORT", 0) == 0 && entry.second.contains("max");
      });
  const auto single = constants.strings.find("REASONING_EFFORT_MAX");
  if (table != constants.tables.end()) {
    for (const auto& [level, text] : table->second) {
      const std::string name = fmt::format("{}[\"{}\"]", table->first, level);
      if (level == "low") {
        texts.efforts_[Effort::kLow] = text;
      } else if (level == "high" || level == "max") {
        texts.efforts_[level == "high" ? Effort::kHigh : Effort::kMax] = text;
        texts.CheckDigest(name, text, {level == "high" ? kEffortA : kEffortB});
      } else {
        texts.warnings_.push_back(
            fmt::format("{}: {} is no known level; it can't be asked for", origin, name));
      }
    }
  } else if (single != constants.strings.end()) {
    texts.efforts_ = {{Effort::kHigh, ""}, {Effort::kMax, single->second}};
    texts.CheckDigest(single->first, single->second, {kEffortA});
  }
  if (const auto found = constants.strings.find("TOOLS_TEMPLATE");
      found != constants.strings.end()) {
    std::tie(texts.tools_before_, texts.tools_after_) =
        FillTemplate(found->second, "tool_schemas", origin + ": TOOLS_TEMPLATE");
    texts.CheckDigest("TOOLS_TEMPLATE, before the schemas,", *texts.tools_before_, {kToolsBefore});
    texts.CheckDigest("TOOLS_TEMPLATE, after the schemas,", *texts.tools_after_, {kToolsAfter});
  }
  if (const auto found = constants.strings.find("response_format_template");
      found != constants.strings.end()) {
    auto [before, after] =
        FillTemplate(found->second, "schema", origin + ": response_format_template");
    if (!after.empty()) {
      throw Error(ErrorCode::kUnsupported,
                  origin + ": response_format_template has text behind the schema");
    }
    texts.CheckDigest("response_format_template", before, {kResponseFormatBefore});
    texts.response_format_before_ = std::move(before);
  }
  return texts;
}

PromptTexts PromptTexts::FromJson(std::string_view json, const std::string& origin) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: {}; see docs/formats/prompt_texts.md", origin, what));
  };
  const auto object = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
  // The library takes a zero byte for the end of the text.
  if (!object.is_object() || json.find('\0') != json.npos) refuse("not a JSON object");
  PromptTexts texts(origin);
  for (const auto& [key, value] : object.items()) {
    if (key == "effort") {
      if (!value.is_object()) refuse("effort: has to be an object");
      for (const auto& [level, text] : value.items()) {
        if (!text.is_string()) refuse("effort: has to hold strings");
        if (level != "low" && level != "high" && level != "max")
          refuse("effort: knows the levels low, high and max only");
        texts.efforts_[ParseEffort(level)] = text.get<std::string>();
      }
      continue;
    }
    if (key == "note") continue;
    auto* const text = key == "tools_before"             ? &texts.tools_before_
                       : key == "tools_after"            ? &texts.tools_after_
                       : key == "response_format_before" ? &texts.response_format_before_
                                                         : nullptr;
    if (!text) refuse("a key that is not known");
    if (!value.is_string()) refuse(key + ": has to be a string");
    *text = value.get<std::string>();
  }
  if (texts.tools_before_.has_value() != texts.tools_after_.has_value())
    refuse("tools_before and tools_after belong together");
  return texts;
}

std::string_view PromptTexts::EffortText(Effort effort) const {
  if (effort == Effort::kNone) return "";
  if (efforts_.empty()) {
    // No known encoder has a text for low.
    if (effort == Effort::kLow) return "";
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("{}: has no texts for reasoning efforts, and \"{}\" needs to know them; "
                    "leave the effort out or add prompt_texts.json",
                    origin_, EffortName(effort)));
  }
  if (const auto found = efforts_.find(effort); found != efforts_.end()) return found->second;
  std::string accepted;
  for (const Effort known : Efforts())
    accepted += fmt::format("{}{}", accepted.empty() ? "" : ", ", EffortName(known));
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("reasoning_effort: this model does not know \"{}\"; it knows {}",
                          EffortName(effort), accepted));
}

std::vector<Effort> PromptTexts::Efforts() const {
  std::vector<Effort> known;
  for (const auto& [effort, text] : efforts_) known.push_back(effort);
  return known;
}

std::string_view PromptTexts::Need(const std::optional<std::string>& text, const char* what) const {
  if (text) return *text;
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: has no prompt text for {}; use the encoding folder the model came "
                          "with or add prompt_texts.json",
                          origin_, what));
}

void PromptTexts::CheckDigest(std::string_view name, const std::string& text,
                              std::initializer_list<std::string_view> known) {
  const std::string digest = Sha256(text);
  for (const std::string_view expected : known) {
    if (digest == expected) return;
  }
  warnings_.push_back(
      fmt::format("{}: {} is not the text of a known revision (SHA-256 {}); it is "
                  "used as it is",
                  origin_, name, digest));
}

}  // namespace toaster
