// The encoder of a checkpoint from anywhere, as Python and as JSON: texts or an Error.
// Seeds: tests/data/chat.

#include <string_view>

#include "base/error.h"
#include "chat/prompt_texts.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& read : {toaster::PromptTexts::FromEncoder, toaster::PromptTexts::FromJson}) {
    try {
      const toaster::PromptTexts texts = read(text, "fuzz");
      for (const toaster::Effort effort : texts.Efforts()) texts.EffortText(effort);
    } catch (const toaster::Error&) {
    }
  }
  return 0;
}
