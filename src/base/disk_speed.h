#pragma once

#include <filesystem>
#include <optional>
#include <vector>

namespace toaster {

/// Bytes per second at which `files` can be read as experts are: by a DirectReader, several ranges
/// of many megabytes at a time from anywhere, for about `seconds`. Nothing where a file system
/// cannot read past its page cache, or the files are small.
std::optional<double> DirectReadRate(const std::vector<std::filesystem::path>& files,
                                     double seconds = 1);

}  // namespace toaster
