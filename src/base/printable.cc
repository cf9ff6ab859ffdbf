#include "base/printable.h"

#include <fmt/format.h>

#include <cstddef>

namespace toaster {
namespace {

// Bytes of the well-formed UTF-8 character at the start of `text`, 0 if there is none. Overlong
// forms and surrogates are not told apart from the rest: a terminal copes with them.
size_t CharacterLength(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string Printable(std::string_view text) {
  constexpr size_t kLongest = 160;
  std::string line;
  size_t at = 0;
  while (at < text.size() && at < kLongest) {
    const size_t length = CharacterLength(text.substr(at));
    const auto byte = static_cast<unsigned char>(text[at]);
    // U+0080..U+009F are control characters too.
    const bool control =
        byte < 0x20 || byte == 0x7F ||
        (length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[at + 1]) < 0xA0);
    if (length == 0 || control) {
      line += fmt::format("\\x{:02x}", byte);
      ++at;
    } else {
      line += text.substr(at, length);
      at += length;
    }
  }
  if (at < text.size()) line += "...";
  return line;
}

}  // namespace toaster
