#pragma once

#include <string>

#include "tokenizer/tokenizer.h"

namespace toaster {

/// All bytes of a file, or of standard input if `file` is empty or "-". Throws Error(kNotFound),
/// Error(kIo), and Error(kInvalidArgument) for more than Tokenizer::kMaxTextBytes.
std::string ReadInput(const std::string& file);

/// The tokenizer of a model folder or a tokenizer.json. A model folder without one has the byte
/// tokenizer over the vocabulary its config.json states.
Tokenizer TokenizerOf(const std::string& model);

/// The bytes of a token for a terminal: printable characters as they are, line feeds and the like
/// as \n, \r, \t, a backslash as \\, other control characters and ill-formed bytes as \xNN.
std::string PrintablePiece(std::string_view bytes);

}  // namespace toaster
