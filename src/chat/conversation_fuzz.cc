// A conversation from any client either is refused with an Error or becomes a prompt whose tokens
// are its bytes and whose control tokens are the encoder's own. Seeds: tests/data/chat.

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "chat/conversation.h"
#include "chat/prompt.h"
#include "chat/prompt_texts.h"
#include "chat/render_prompt.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const toaster::Tokenizer tokenizer = toaster::Tokenizer::Bytes(512);
  static const toaster::PromptTexts texts = toaster::PromptTexts::FromJson(
      R"({"effort": {"high": "H", "max": "M"}, "tools_before": "T ｜DSML｜", "tools_after": "A",
          "response_format_before": "R"})",
      "fuzz");
  try {
    const toaster::JsonValue json = toaster::ParsePythonJson(
        std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    // What is written once reads back as what is written again.
    const std::string dumped = toaster::DumpPythonJson(json);
    if (toaster::DumpPythonJson(toaster::ParsePythonJson(dumped, "fuzz")) != dumped) std::abort();
    const toaster::Prompt prompt = toaster::RenderPrompt(toaster::ParseConversation(json), texts);
    const toaster::PromptTokens encoded = toaster::EncodePrompt(prompt, tokenizer);
    if (tokenizer.Decode(encoded.tokens) != prompt.Text()) std::abort();
    if (encoded.stable > encoded.tokens.size()) std::abort();
    size_t control = 0, expected = 0;
    for (const int32_t id : encoded.tokens) control += tokenizer.IsControlToken(id);
    for (const toaster::PromptSegment& segment : prompt.segments()) expected += segment.control;
    if (control != expected) std::abort();
  } catch (const toaster::Error&) {
  }
  return 0;
}
