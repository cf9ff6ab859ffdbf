#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/byte_pairs.h"

namespace toaster {

/// A token that stands for itself, outside the merges: role markers, <think>, ...
struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = false;  ///< as the file says; recognition does not depend on it
};

/// What a tokenizer.json of the byte-level BPE kind holds, checked and in the program's own terms.
struct TokenizerFile {
  std::vector<std::string> tokens;  ///< bytes of every id; empty: no such id
  std::array<int32_t, 256> byte_tokens{};
  std::vector<Merge> merges;
  std::vector<AddedToken> added_tokens;
  std::vector<std::string> expressions;  ///< of the isolated splits, in order
};

/// Reads the text of a tokenizer.json. Strict: anything that would make another
/// tokenizer than byte-level BPE after isolated splits is refused by name. The post-processor is
/// not looked at: which control tokens a prompt begins with is the prompt encoder's business.
/// Memory stays within a small multiple of the text's size, whatever it holds.
///
/// Throws Error(kCorruptFile) for text that is no JSON or contradicts itself, and
/// Error(kUnsupported) for a sound file of another kind. Every message names `origin` and the
/// field.
TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& origin);

/// The text of a tokenizer.json from which ParseTokenizerFile() reads the same again, in the shape
/// of the released ones. Every token that is not an added one has to be a byte or the result of a
/// merge, and no merge's text occurs twice (CHECKed).
std::string TokenizerFileText(const TokenizerFile& file);

}  // namespace toaster
