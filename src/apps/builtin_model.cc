#include "apps/builtin_model.h"

extern "C" {
extern const char toaster_builtin_config[], toaster_builtin_config_end[];
extern const char toaster_builtin_tokenizer[], toaster_builtin_tokenizer_end[];
extern const char toaster_builtin_prompt_texts[], toaster_builtin_prompt_texts_end[];
extern const std::byte toaster_builtin_weights[], toaster_builtin_weights_end[];
}

namespace toaster {

namespace {

std::string_view Between(const char* begin, const char* end) {
  return {begin, static_cast<size_t>(end - begin)};
}

}  // namespace

std::string_view BuiltinConfig() {
  return Between(toaster_builtin_config, toaster_builtin_config_end);
}

std::string_view BuiltinTokenizer() {
  return Between(toaster_builtin_tokenizer, toaster_builtin_tokenizer_end);
}

std::string_view BuiltinPromptTexts() {
  return Between(toaster_builtin_prompt_texts, toaster_builtin_prompt_texts_end);
}

std::span<const std::byte> BuiltinWeights() {
  return {toaster_builtin_weights,
          static_cast<size_t>(toaster_builtin_weights_end - toaster_builtin_weights)};
}

}  // namespace toaster
