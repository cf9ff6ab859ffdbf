#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace toaster {

/// Parses one JSON text from an untrusted source. Stricter than the library: nesting deeper than
/// 64 and a key given twice in one object are errors too. Comments, NaN and numbers beyond double
/// are no JSON anyway. Throws Error(kCorruptFile) with `origin` in front. The result takes up to
/// sixteen times the memory of the text: the caller bounds the text.
nlohmann::json ParseJson(std::string_view text, const std::string& origin);

}  // namespace toaster
