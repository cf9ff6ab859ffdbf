#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace toaster {

/// The small model inside the program, used where no MODEL is named: models/builtin of the source
/// tree.
std::string_view BuiltinConfig();
std::span<const std::byte> BuiltinWeights();

}  // namespace toaster
