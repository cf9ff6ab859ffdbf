#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/units.h"

namespace toaster {

/// Lets an option of bytes be written as 500MB, 3.5GB or 24GiB.
inline CLI::Validator SizeText() {
  return CLI::Validator(
      [](std::string& text) {
        const auto bytes = ParseBytes(text);
        if (!bytes)
          return fmt::format("\"{}\" is no size; write it as 500MB, 3.5GB or 24GiB", text);
        text = fmt::format("{}", *bytes);
        return std::string();
      },
      "SIZE");
}

}  // namespace toaster
