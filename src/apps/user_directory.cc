#include "apps/user_directory.h"

#include <cstdlib>

namespace toaster {

std::filesystem::path UserDirectory(const char* variable, const char* below_home) {
  const char* given = std::getenv(variable);
  const char* home = std::getenv("HOME");
  if (given != nullptr && *given == '/') return std::filesystem::path(given) / "toaster";
  if (home != nullptr && *home != '\0') return std::filesystem::path(home) / below_home / "toaster";
  return {};
}

}  // namespace toaster
