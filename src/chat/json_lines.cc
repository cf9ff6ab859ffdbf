#include "chat/json_lines.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace toaster {

void ForEachJsonLine(std::string_view text, const std::string& origin,
                     const std::function<void(const JsonValue& line)>& handle, size_t first_line) {
  for (size_t begin = 0, number = first_line; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string where = fmt::format("{}:{}", origin, number);
    const JsonValue json = ParsePythonJson(line, where);
    if (!json.is_object())
      throw Error(ErrorCode::kInvalidArgument, where + ": has to be a JSON object");
    try {
      handle(json);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}: {}", where, error.what()));
    }
  }
}

}  // namespace toaster
