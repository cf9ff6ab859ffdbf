#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace toaster {

/// The small model inside the program, used where no MODEL is named: models/builtin of the source
/// tree. The texts are those of config.json, tokenizer.json and encoding/prompt_texts.json.
std::string_view BuiltinConfig();
std::string_view BuiltinTokenizer();
std::string_view BuiltinPromptTexts();
std::span<const std::byte> BuiltinWeights();

}  // namespace toaster
