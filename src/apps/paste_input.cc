#include "apps/paste_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/units.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr std::string_view kPasteBegin = "\033[200~";
constexpr std::string_view kPasteEnd = "\033[201~";
constexpr size_t kBurstBytes = 256;
constexpr size_t kShortPaste = 200;

bool IsLineEnd(char byte) { return byte == '\r' || byte == '\n'; }

bool IsCommand(std::string_view line) {
  return line.size() > 1 && line[0] == '/' && std::isalpha(static_cast<unsigned char>(line[1]));
}

/// Terminals send pasted line ends as carriage returns.
std::string PastedText(std::string_view bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool pair = bytes[i] == '\r' && i + 1 < bytes.size() && bytes[i + 1] == '\n';
    if (!pair) text += bytes[i] == '\r' ? '\n' : bytes[i];
  }
  return ReplaceIllFormed(text);
}

}  // namespace

bool PasteInput::Undecided() const {
  return !waiting_.empty() && waiting_.rfind(kPasteBegin, 0) != 0;
}

void PasteInput::Clear() {
  waiting_.clear();
  line_.clear();
  in_burst_ = false;
  searched_ = 0;
}

PasteInput::Piece PasteInput::Take(size_t length, bool paste) {
  Piece piece{paste, waiting_.substr(0, length)};
  waiting_.erase(0, length);
  return piece;
}

std::optional<PasteInput::Piece> PasteInput::NextBurst(bool quiet) {
  in_burst_ = !quiet;
  if (!quiet) return std::nullopt;
  // The last line end is the key that sends the message.
  const bool sends = IsLineEnd(waiting_.back());
  Piece piece = Take(waiting_.size() - (sends ? 1 : 0), true);
  if (sends && !piece.text.empty() && piece.text.back() == '\r') piece.text.pop_back();
  piece.text = PastedText(piece.text);
  line_ += ' ';
  return piece;
}

std::optional<PasteInput::Piece> PasteInput::Next(bool quiet) {
  if (waiting_.empty()) return std::nullopt;
  if (waiting_.rfind(kPasteBegin, 0) == 0) {
    const size_t end = waiting_.find(kPasteEnd, std::max(searched_, kPasteBegin.size()));
    // Long pastes come in many parts: what was searched once need not be again.
    searched_ = end == waiting_.npos ? waiting_.size() - kPasteEnd.size() : 0;
    if (end == waiting_.npos) return std::nullopt;
    waiting_.erase(0, kPasteBegin.size());
    Piece piece = Take(end - kPasteBegin.size(), true);
    waiting_.erase(0, kPasteEnd.size());
    piece.text = PastedText(piece.text);
    line_ += ' ';
    return piece;
  }
  if (in_burst_) return NextBurst(quiet);
  if (!quiet && kPasteBegin.rfind(waiting_, 0) == 0) return std::nullopt;
  const bool keys = waiting_.find('\033') != waiting_.npos;
  const bool line_end = IsLineEnd(waiting_[0]);
  const size_t line_length = waiting_.find_first_of("\r\n");
  const bool goes_on = line_length != waiting_.npos && line_length + 1 < waiting_.size() &&
                       !IsCommand(line_ + waiting_.substr(0, line_length));
  if (!keys && (waiting_.size() > kBurstBytes || goes_on)) return NextBurst(quiet);
  const uint32_t length = FirstCharacter(waiting_).length;
  if (length == 0 && !quiet && UnfinishedSuffix(waiting_) == waiting_.size()) return std::nullopt;
  Piece piece = Take(std::max<uint32_t>(length, 1), false);
  if (length == 0) piece.text = ReplaceIllFormed(piece.text);
  if (line_end) {
    line_.clear();
  } else {
    line_ += piece.text;
  }
  return piece;
}

std::string PasteLabel(std::string_view text, size_t number) {
  const bool plain = std::none_of(text.begin(), text.end(), [](char byte) {
    return static_cast<unsigned char>(byte) < 0x20 || byte == 0x7F;
  });
  if (plain && text.size() <= kShortPaste) return std::string(text);
  const auto lines =
      std::count(text.begin(), text.end(), '\n') + (text.empty() || text.back() == '\n' ? 0 : 1);
  return fmt::format("[paste {}: {} lines, {} bytes]", number, GroupedText(lines),
                     GroupedText(static_cast<int64_t>(text.size())));
}

}  // namespace toaster
