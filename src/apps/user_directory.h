#pragma once

#include <filesystem>

namespace toaster {

/// `toaster` in the directory that the variable of the XDG rules names ("XDG_CACHE_HOME"), or in
/// `below_home` of the user's home (".cache"). Empty where neither is known. Relative values do not
/// count, as the rules say.
std::filesystem::path UserDirectory(const char* variable, const char* below_home);

}  // namespace toaster
