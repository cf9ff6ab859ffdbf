#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace toaster {

/// How a tokenizer.json writes bytes as printable characters (GPT-2's way): printable Latin-1
/// stands for itself, the other bytes follow in order from U+0100 on.
class ByteAlphabet {
 public:
  ByteAlphabet();

  /// The bytes that `text` stands for; nothing if some character stands for none.
  std::optional<std::string> Decode(std::string_view text) const;
  /// The characters that stand for `bytes`, in UTF-8.
  std::string Encode(std::string_view bytes) const;

 private:
  std::array<int16_t, 0x144> bytes_;      ///< [character]; -1: stands for none
  std::array<uint16_t, 256> characters_;  ///< [byte]
};

}  // namespace toaster
