#include "base/units.h"

#include <fmt/format.h>

namespace toaster {

std::string BytesText(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 999.5 && unit < 4) bytes /= 1000, ++unit;
  const int digits = unit == 0 || bytes >= 1000 ? 0 : bytes < 10 ? 2 : 1;
  return fmt::format("{:.{}f} {}", bytes, digits, kUnits[unit]);
}

std::string CountText(double count) {
  if (count < 1e6) return GroupedText(static_cast<int64_t>(count));
  if (count < 1e9) return fmt::format("{:.2f} M", count / 1e6);
  return fmt::format("{:.{}f} B", count / 1e9, count < 1e12 ? 2 : 1);
}

std::string GroupedText(int64_t number) {
  const std::string digits = fmt::format("{}", number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    const size_t left = digits.size() - i;
    if (i > 0 && digits[i - 1] != '-' && left % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

}  // namespace toaster
