// A tokenizer.json from anywhere either is refused with an Error or makes a tokenizer that gives
// every text back. Seeds: tests/data/tokenizer.

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using toaster::ControlTokens;
  using toaster::Tokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Tokenizer tokenizer = Tokenizer::FromJson(text, "fuzz");
    // Its own beginning is as good a text as any.
    const std::string_view sample = text.substr(0, 500);
    for (const ControlTokens control : {ControlTokens::kAsText, ControlTokens::kRecognised}) {
      const auto tokens = tokenizer.Encode(sample, control);
      if (tokenizer.Decode(tokens) != sample) std::abort();
      for (const int32_t id : tokens) {
        if (control == ControlTokens::kAsText && tokenizer.IsControlToken(id)) std::abort();
      }
    }
  } catch (const toaster::Error&) {
  }
  return 0;
}
