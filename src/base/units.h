#pragma once

#include <cstdint>
#include <string>

namespace toaster {

/// Bytes for people, three or four significant digits: "584 B", "3.21 MB", "159.6 GB". Powers of
/// ten.
std::string BytesText(double bytes);

/// A count for people, in short-scale words' initials: "512", "6.29 M", "284.33 B", "1573.0 B".
std::string CountText(double count);

/// 1234567 as "1,234,567".
std::string GroupedText(int64_t number);

}  // namespace toaster
