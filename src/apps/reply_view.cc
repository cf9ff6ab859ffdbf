#include "apps/reply_view.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "tokenizer/utf8.h"

namespace toaster {
namespace {

/// Rewrites the line the cursor is in.
std::string FoldedLine(std::string_view what, int64_t tokens, bool colour) {
  return fmt::format("\r{}\033[K", DimText(fmt::format("[{}: {} tokens]", what, tokens), colour));
}

}  // namespace

std::string TerminalText(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const Utf8Character character = FirstCharacter(text);
    const uint32_t code_point = character.code_point;
    const size_t length = character.length == 0 ? 1 : character.length;
    const bool plain = code_point == '\n' || code_point == '\t';
    const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
    if (character.length == 0) {
      shown += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[0]));
    } else if (control && !plain) {
      if (code_point != '\r') shown += fmt::format("\\x{:02x}", code_point);
    } else {
      shown += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return shown;
}

bool WantsColour(int file_descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return isatty(file_descriptor) && !(no_color && *no_color) &&
         !(term && std::string_view(term) == "dumb");
}

std::string DimText(std::string_view text, bool colour) {
  return colour ? fmt::format("\033[2m{}\033[0m", text) : std::string(text);
}

void ReplyView::Add(std::string& output, std::string_view text) {
  if (text.empty()) return;
  output += text;
  line_begun_ = text.back() != '\n';
}

std::string ReplyView::EndReasoning(int64_t reasoning_tokens) {
  if (!in_reasoning_) return "";
  in_reasoning_ = false;
  std::string output;
  if (folded_) {
    output = FoldedLine("thought", reasoning_tokens, colour_);
    output += '\n';
  } else if (line_begun_) {
    output = "\n";
  }
  line_begun_ = false;
  return output;
}

std::string ReplyView::Show(const ReplyEvent& event, int64_t reasoning_tokens) {
  if (event.kind == ReplyEvent::Kind::kWarning) return "";
  const std::string text = TerminalText(event.text);
  std::string output;
  if (event.kind == ReplyEvent::Kind::kReasoning) {
    if (!in_reasoning_ && line_begun_) Add(output, "\n");
    in_reasoning_ = true;
    if (folded_) {
      output += FoldedLine("thinking", reasoning_tokens, colour_);
      return output;
    }
    // Dim is switched off again each time: whatever ends the program leaves the terminal as it was.
    output += DimText(text, colour_);
    if (!text.empty()) line_begun_ = text.back() != '\n';
    return output;
  }
  if (in_reasoning_) {
    output += EndReasoning(reasoning_tokens);
    output += '\n';
  }
  switch (event.kind) {
    case ReplyEvent::Kind::kContent:
      Add(output, text);
      break;
    case ReplyEvent::Kind::kCallBegin:
      if (line_begun_) Add(output, "\n");
      Add(output, fmt::format("[calls {} with ", text));
      break;
    case ReplyEvent::Kind::kArguments:
      Add(output, text);
      break;
    case ReplyEvent::Kind::kCallEnd:
      Add(output, event.complete ? "]\n" : " ... cut off]\n");
      break;
    case ReplyEvent::Kind::kReasoning:
    case ReplyEvent::Kind::kWarning:
      break;
  }
  return output;
}

std::string ReplyView::Finish(int64_t reasoning_tokens) {
  std::string output = EndReasoning(reasoning_tokens);
  if (line_begun_) Add(output, "\n");
  return output;
}

}  // namespace toaster
