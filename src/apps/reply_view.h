#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "chat/parse_reply.h"

namespace toaster {

/// Text of a model for a terminal: control characters other than line feed and tab become \xNN, so
/// that no reply can steer the terminal. Carriage returns are left out.
std::string TerminalText(std::string_view text);

/// Whether to write colours: on a terminal, unless NO_COLOR is set to something or TERM is dumb.
bool WantsColour(int file_descriptor);

/// A short note of the program's own, dim if `colour`.
std::string DimText(std::string_view text, bool colour);

/// Lays a reply out for a terminal as it streams. The reasoning comes first and dim, then an empty
/// line, then the answer as it is. Folded, the reasoning is one line that counts its tokens.
class ReplyView {
 public:
  ReplyView(bool colour, bool folded) : colour_(colour), folded_(folded) {}

  /// What to write for `event`; `reasoning_tokens` so far.
  std::string Show(const ReplyEvent& event, int64_t reasoning_tokens);
  /// What to write when the reply is over: it leaves the cursor at the beginning of a line.
  std::string Finish(int64_t reasoning_tokens);

 private:
  std::string EndReasoning(int64_t reasoning_tokens);
  void Add(std::string& output, std::string_view text);

  bool colour_, folded_;
  bool in_reasoning_ = false;
  bool line_begun_ = false;
};

}  // namespace toaster
