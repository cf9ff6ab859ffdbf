#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace toaster {

/// Takes what a terminal sends apart into keys and pastes. A paste is what stands between the
/// terminal's paste marks (ESC [ 200 ~ and ESC [ 201 ~); where a terminal sends no marks, it is a
/// burst: bytes that are waiting together and are too many for fingers, or go on behind a line's
/// end. Typed commands are the exception: the end of a line that begins with a slash and a letter
/// ends it always, so that commands can be typed ahead.
class PasteInput {
 public:
  struct Piece {
    bool paste = false;
    std::string text;  ///< of a paste: with line feeds as line ends; otherwise one character
  };

  void Push(std::string_view bytes) { waiting_ += bytes; }
  /// The next piece, if the waiting bytes decide it. `quiet`: nothing has come for a moment, so
  /// what could be the beginning of something longer is not.
  std::optional<Piece> Next(bool quiet);
  /// Whether bytes are waiting whose meaning a moment of quiet would decide.
  bool Undecided() const;
  /// Throws away what is waiting; a new line begins.
  void Clear();

 private:
  std::optional<Piece> NextBurst(bool quiet);
  Piece Take(size_t length, bool paste);

  std::string waiting_;
  std::string line_;  ///< what was given since the last line end
  bool in_burst_ = false;
  size_t searched_ = 0;  ///< no paste ends before this byte of waiting_
};

/// A paste as a line editor shows it: short ones on one line as they are, others as a label like
/// "[paste 2: 300 lines, 12,345 bytes]".
std::string PasteLabel(std::string_view text, size_t number);

}  // namespace toaster
