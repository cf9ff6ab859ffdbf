#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace toaster {

/// What the word splitter has to know about a code point: its general category, reduced to the
/// groups that the tokenizer's expressions name, with White_Space taken out of its categories (the
/// two overlap in control characters and separators only, which no expression names).
enum UnicodeClass : uint8_t {
  kOther = 0,        ///< C* and everything unassigned
  kLetter = 1,       ///< L*
  kMark = 2,         ///< M*
  kNumber = 4,       ///< N*
  kPunctuation = 8,  ///< P*
  kSymbol = 16,      ///< S*
  kWhiteSpace = 32,  ///< the White_Space property: with U+0085, without U+180E and U+FEFF
};

struct UnicodeRange {
  uint32_t first;
  UnicodeClass kind;
};

/// All code points in order, as ranges of one class (generated, Unicode 14).
std::span<const UnicodeRange> UnicodeRanges();

/// The ranges spread out into one byte per code point, 1.1 MB. Built once per process, on first
/// use, by whichever thread comes first.
class UnicodeClasses {
 public:
  static const UnicodeClasses& Get();
  UnicodeClass operator[](uint32_t code_point) const {
    return static_cast<UnicodeClass>(classes_[code_point]);
  }

 private:
  UnicodeClasses();
  std::unique_ptr<uint8_t[]> classes_;
};

}  // namespace toaster
