#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "chat/python_json.h"

namespace toaster {

/// Calls `handle` with every line of a JSONL text, each a JSON object; empty lines are left out.
/// Throws Error(kInvalidArgument) that begins with the place, "origin:line", as errors that
/// `handle` throws do then, too. `first_line` is the number of the first line.
void ForEachJsonLine(std::string_view text, const std::string& origin,
                     const std::function<void(const JsonValue& line)>& handle,
                     size_t first_line = 1);

}  // namespace toaster
