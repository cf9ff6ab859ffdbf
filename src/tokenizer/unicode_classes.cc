#include "tokenizer/unicode_classes.h"

#include <algorithm>

namespace toaster {

constexpr size_t kCodePoints = 0x110000;

UnicodeClasses::UnicodeClasses() : classes_(std::make_unique<uint8_t[]>(kCodePoints)) {
  const std::span<const UnicodeRange> ranges = UnicodeRanges();
  for (size_t i = 0; i < ranges.size(); ++i) {
    const size_t end = i + 1 < ranges.size() ? ranges[i + 1].first : kCodePoints;
    std::fill(classes_.get() + ranges[i].first, classes_.get() + end,
              static_cast<uint8_t>(ranges[i].kind));
  }
}

const UnicodeClasses& UnicodeClasses::Get() {
  static const UnicodeClasses classes;
  return classes;
}

}  // namespace toaster
