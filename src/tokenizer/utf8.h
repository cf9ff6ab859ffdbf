#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace toaster {

/// One character at the front of a text.
struct Utf8Character {
  uint32_t code_point = 0;
  uint32_t length = 0;  ///< bytes; 0: the text does not begin with a well-formed character
};

/// Reads the character at the front of `text` as the Unicode standard defines well-formed UTF-8: no
/// overlong forms, no surrogates, nothing above U+10FFFF.
Utf8Character FirstCharacter(std::string_view text);

/// The character at `position` of a text known to be well-formed.
inline Utf8Character CharacterAt(const char* position) {
  const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(position[i])); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

/// Length in bytes of the longest well-formed prefix of `text`.
size_t WellFormedPrefix(std::string_view text);

/// Length in bytes (0 to 3) of a character that `text` begins at its end but does not finish. Bytes
/// that no continuation could make well-formed do not count.
size_t UnfinishedSuffix(std::string_view text);

/// `text` with U+FFFD in place of every maximal ill-formed part, as the Unicode standard recommends
/// and Python's errors="replace" does.
std::string ReplaceIllFormed(std::string_view text);

/// Makes well-formed text of bytes that arrive in pieces cut anywhere: holds back an unfinished
/// character, writes U+FFFD for what can't be part of one.
class Utf8Buffer {
 public:
  /// The text that `bytes` complete; often empty in the middle of a character.
  std::string Push(std::string_view bytes);
  /// What is left at the end: U+FFFD for an unfinished character, or nothing.
  std::string Finish();

 private:
  std::string held_;
};

/// Appends the UTF-8 form of a code point (no surrogate, at most U+10FFFF).
void AppendUtf8(uint32_t code_point, std::string& text);

}  // namespace toaster
