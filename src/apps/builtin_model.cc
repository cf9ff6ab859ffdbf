#include "apps/builtin_model.h"

extern "C" {
extern const char toaster_builtin_config[];
extern const char toaster_builtin_config_end[];
extern const std::byte toaster_builtin_weights[];
extern const std::byte toaster_builtin_weights_end[];
}

namespace toaster {

std::string_view BuiltinConfig() {
  return {toaster_builtin_config,
          static_cast<size_t>(toaster_builtin_config_end - toaster_builtin_config)};
}

std::span<const std::byte> BuiltinWeights() {
  return {toaster_builtin_weights,
          static_cast<size_t>(toaster_builtin_weights_end - toaster_builtin_weights)};
}

}  // namespace toaster
