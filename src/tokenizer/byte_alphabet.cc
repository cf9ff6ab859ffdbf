#include "tokenizer/byte_alphabet.h"

#include "tokenizer/utf8.h"

namespace toaster {

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  uint16_t next = 0x100;
  for (uint16_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    characters_[byte] = printable ? byte : next++;
    bytes_[characters_[byte]] = static_cast<int16_t>(byte);
  }
}

std::optional<std::string> ByteAlphabet::Decode(std::string_view text) const {
  std::string bytes;
  while (!text.empty()) {
    const Utf8Character character = FirstCharacter(text);
    if (character.length == 0 || character.code_point >= bytes_.size()) return std::nullopt;
    const int16_t byte = bytes_[character.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    text.remove_prefix(character.length);
  }
  return bytes;
}

std::string ByteAlphabet::Encode(std::string_view bytes) const {
  std::string text;
  for (const char byte : bytes) AppendUtf8(characters_[static_cast<uint8_t>(byte)], text);
  return text;
}

}  // namespace toaster
