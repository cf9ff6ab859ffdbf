#include "apps/text_input.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

int64_t VocabularySize(const std::filesystem::path& config) {
  const MappedFile file(config);
  const auto* text = reinterpret_cast<const char*>(file.bytes().data());
  const auto json = nlohmann::json::parse(text, text + file.bytes().size(), nullptr, false);
  if (!json.is_object() || !json.contains("vocab_size") ||
      !json["vocab_size"].is_number_integer()) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: no JSON object with a vocab_size", config.string()));
  }
  return json["vocab_size"].get<int64_t>();
}

}  // namespace

std::string ReadInput(const std::string& file) {
  const bool standard = file.empty() || file == "-";
  const std::string name = standard ? "standard input" : file;
  const auto close = [](std::FILE* stream) {
    if (stream != stdin) std::fclose(stream);
  };
  const std::unique_ptr<std::FILE, decltype(close)> stream(
      standard ? stdin : std::fopen(file.c_str(), "rb"), close);
  if (!stream) {
    const int reason = errno;
    throw Error(reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("{}: cannot open: {}", name, std::strerror(reason)));
  }
  std::string text;
  char buffer[65536];
  while (const size_t count = std::fread(buffer, 1, sizeof buffer, stream.get())) {
    text.append(buffer, count);
    if (text.size() > Tokenizer::kMaxTextBytes) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}: more than {} bytes; cut it", name, Tokenizer::kMaxTextBytes));
    }
  }
  if (std::ferror(stream.get()))
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot read: {}", name, std::strerror(errno)));
  return text;
}

Tokenizer TokenizerOf(const std::string& model) {
  const std::filesystem::path path = model;
  const bool bytes = std::filesystem::is_directory(path) &&
                     !std::filesystem::exists(path / "tokenizer.json") &&
                     std::filesystem::exists(path / "config.json");
  return bytes ? Tokenizer::Bytes(VocabularySize(path / "config.json")) : Tokenizer::Load(path);
}

std::string PrintablePiece(std::string_view bytes) {
  std::string shown;
  while (!bytes.empty()) {
    const Utf8Character character = FirstCharacter(bytes);
    const uint32_t code_point = character.code_point;
    const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
    if (code_point == '\n') {
      shown += "\\n";
    } else if (code_point == '\r') {
      shown += "\\r";
    } else if (code_point == '\t') {
      shown += "\\t";
    } else if (code_point == '\\') {
      shown += "\\\\";
    } else if (character.length == 0 || control) {
      shown += fmt::format("\\x{:02x}", static_cast<uint8_t>(bytes[0]));
      bytes.remove_prefix(1);
      continue;
    } else {
      shown += bytes.substr(0, character.length);
    }
    bytes.remove_prefix(character.length);
  }
  return shown;
}

}  // namespace toaster
