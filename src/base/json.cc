#include "base/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "base/error.h"
#include "base/printable.h"

namespace toaster {

nlohmann::json ParseJson(std::string_view text, const std::string& origin) {
  using nlohmann::json;
  constexpr int kDeepest = 64;
  std::vector<std::set<std::string>> open;  // the keys seen in every open object; arrays have none
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      if (depth >= kDeepest) {
        throw Error(ErrorCode::kCorruptFile,
                    fmt::format("{}: JSON nested deeper than {}", origin, kDeepest));
      }
      open.resize(static_cast<size_t>(depth));
      open.emplace_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!open[static_cast<size_t>(depth - 1)].insert(key).second) {
        throw Error(ErrorCode::kCorruptFile,
                    fmt::format("{}: key '{}' stands twice in one object; remove one", origin,
                                Printable(key)));
      }
    }
    return true;
  };
  // The parser takes a zero byte for the end of its input.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: not valid JSON at byte {} of {}", origin, zero, text.size()));
  }
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::parse_error& error) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{}: not valid JSON at byte {} of {}", origin,
                                                     error.byte, text.size()));
  } catch (const json::exception&) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: not valid JSON: a number out of range", origin));
  }
}

}  // namespace toaster
