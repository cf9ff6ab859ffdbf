#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace toaster {

/// Bytes for people, three or four significant digits: "584 B", "3.21 MB", "159.6 GB". Powers of
/// ten.
std::string BytesText(double bytes);

/// What BytesText() writes and people do: "32GB", "3.5 GiB", "500m", "4096"; K, M, G and T are
/// powers of ten with or without B, of two with iB, in any case. Nothing if it is no such text.
std::optional<int64_t> ParseBytes(std::string_view text);

/// A count for people, in short-scale words' initials: "512", "6.29 M", "284.33 B", "1573.0 B".
std::string CountText(double count);

/// 1234567 as "1,234,567".
std::string GroupedText(int64_t number);

}  // namespace toaster
