// The scanner for the three DeepSeek expressions. A piece of text after the first two splits is a
// group of digits, a run of ideographs and kana, or a stretch with neither; the alternatives of the
// third expression then see nothing outside their piece, which is what makes one pass possible.

#include "tokenizer/split_words.h"
#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr uint8_t kWord = kLetter | kMark;
constexpr uint8_t kMarked = kPunctuation | kSymbol;

/// [一-龥぀-ゟ゠-ヿ]
bool IsIdeographOrKana(uint32_t code_point) {
  return (code_point >= 0x4E00 && code_point <= 0x9FA5) ||
         (code_point >= 0x3040 && code_point <= 0x30FF);
}

bool IsLineEnd(uint32_t code_point) { return code_point == '\r' || code_point == '\n'; }
bool IsAsciiLetter(uint32_t code_point) {
  const uint32_t lower = code_point | 0x20;
  return lower >= 'a' && lower <= 'z' && code_point < 0x80;
}
bool IsAsciiMark(uint32_t code_point, uint8_t kind) {
  return code_point < 0x80 && (kind & kMarked) != 0;
}

class Scanner {
 public:
  Scanner(std::string_view text, uint32_t begin, uint32_t end, std::vector<uint32_t>& ends)
      : text_(text.data()), position_(begin), end_(end), ends_(ends) {}

  void Run() {
    while (position_ < end_) {
      const Character first = At(position_);
      if (first.kind & kNumber) {
        FlushUnmatched();
        ScanDigits();
      } else {
        ideographs_ = first.ideograph;
        ScanWord(first);
      }
    }
    FlushUnmatched();
  }

 private:
  struct Character {
    uint32_t code_point = 0;
    uint32_t next = 0;  ///< offset behind it
    uint8_t kind = 0;
    bool ideograph = false;
  };

  Character At(uint32_t position) const {
    const Utf8Character character = CharacterAt(text_ + position);
    return {character.code_point, position + character.length, classes_[character.code_point],
            IsIdeographOrKana(character.code_point)};
  }

  /// The character at `position` if the piece that holds position_ reaches so far; the class of the
  /// answer is 0 and its end is `position` otherwise.
  Character InPiece(uint32_t position) const {
    if (position >= end_) return {0, position, 0, false};
    const Character character = At(position);
    if ((character.kind & kNumber) || character.ideograph != ideographs_)
      return {0, position, 0, false};
    return character;
  }

  /// The end of the run of characters of one of `kinds` that begins at `position`.
  uint32_t RunEnd(uint32_t position, uint8_t kinds) const {
    for (;;) {
      const Character character = InPiece(position);
      if (!(character.kind & kinds)) return position;
      position = character.next;
    }
  }

  /// \p{N}{1,3}
  void ScanDigits() {
    for (int digits = 0; digits < 3 && position_ < end_; ++digits) {
      const Character character = At(position_);
      if (!(character.kind & kNumber)) break;
      position_ = character.next;
    }
    ends_.push_back(position_);
  }

  void ScanWord(const Character& first) {
    // A piece never spans a change between ideographs and other text, matched or not.
    if (unmatched_ && unmatched_ideographs_ != ideographs_) FlushUnmatched();
    const uint32_t end = MatchEnd(first);
    if (end == position_) {
      unmatched_ = true;
      unmatched_ideographs_ = ideographs_;
      position_ = first.next;
      return;
    }
    FlushUnmatched();
    position_ = end;
    ends_.push_back(end);
  }

  /// Where the match that begins with `first` at position_ ends; position_ itself if there is none.
  uint32_t MatchEnd(const Character& first) const {
    const Character second = InPiece(first.next);
    if (IsAsciiMark(first.code_point, first.kind) && IsAsciiLetter(second.code_point))
      return AsciiLettersEnd(second.next);
    if (first.kind & kWord) return RunEnd(first.next, kWord);
    if (!(first.kind & kMarked) && !IsLineEnd(first.code_point) && (second.kind & kWord))
      return RunEnd(second.next, kWord);
    if (first.kind & kMarked) return LineEndsEnd(RunEnd(first.next, kMarked));
    if (first.code_point == ' ' && (second.kind & kMarked))
      return LineEndsEnd(RunEnd(second.next, kMarked));
    if (first.kind & kWhiteSpace) return WhiteSpaceEnd();
    return position_;
  }

  uint32_t AsciiLettersEnd(uint32_t position) const {
    while (position < end_ && IsAsciiLetter(static_cast<uint8_t>(text_[position]))) ++position;
    return position;
  }

  uint32_t LineEndsEnd(uint32_t position) const {
    while (!ideographs_ && position < end_ && IsLineEnd(static_cast<uint8_t>(text_[position])))
      ++position;
    return position;
  }

  /// \s*[\r\n]+ up to the last line end of the run, or \s+(?!\S) all of it at the end of the piece
  /// and all but its last character elsewhere, or the one character that \s+ is left with.
  uint32_t WhiteSpaceEnd() const {
    uint32_t end = position_, before_last = position_, after_line_end = position_;
    for (;;) {
      const Character character = InPiece(end);
      if (!(character.kind & kWhiteSpace)) {
        if (after_line_end > position_) return after_line_end;
        const bool at_piece_end = character.next == end;
        return at_piece_end || before_last == position_ ? end : before_last;
      }
      before_last = end;
      end = character.next;
      if (IsLineEnd(character.code_point)) after_line_end = end;
    }
  }

  /// What no alternative matched is a word of its own.
  void FlushUnmatched() {
    if (unmatched_) ends_.push_back(position_);
    unmatched_ = false;
  }

  const char* text_;
  uint32_t position_;
  const uint32_t end_;
  std::vector<uint32_t>& ends_;
  const UnicodeClasses& classes_ = UnicodeClasses::Get();
  bool ideographs_ = false;  ///< the current piece is a run of ideographs and kana
  bool unmatched_ = false;   ///< the characters before position_ wait for their word's end
  bool unmatched_ideographs_ = false;
};

}  // namespace

void SplitDeepSeekWords(std::string_view text, uint32_t begin, uint32_t end,
                        std::vector<uint32_t>& ends) {
  Scanner(text, begin, end, ends).Run();
}

const std::vector<std::string>& DeepSeekExpressions() {
  static const std::vector<std::string> expressions = {
      "\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
      "[!\"#$%&'()*+,\\-./"
      ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]"
      "+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};
  return expressions;
}

}  // namespace toaster
