#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// One tensor as the header of a safetensors file states it, numbers not negative, nothing else
/// checked.
struct HeaderEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;  ///< at most eight extents
  int64_t begin = 0;           ///< counted from the end of the header
  int64_t end = 0;
};

/// The header text of a file, checked against the file's length and the format's limit of 10^8
/// bytes. Throws Error(kCorruptFile).
std::string_view HeaderText(std::span<const std::byte> file, const std::string& origin);

/// The entries in the order of the text, "__metadata__" left out. Takes memory in proportion to the
/// text. Throws Error(kCorruptFile), naming the tensor, for text that is no such header.
std::vector<HeaderEntry> ParseHeader(std::string_view text, const std::string& origin);

}  // namespace toaster
