#pragma once

#include <string>
#include <string_view>

namespace toaster {

/// `text` from an untrusted file as one short line for a message: control characters and bytes
/// that are no UTF-8 appear as \xNN, and what follows 160 bytes as "...".
std::string Printable(std::string_view text);

}  // namespace toaster
