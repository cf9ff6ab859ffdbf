#pragma once

#include <filesystem>
#include <optional>

namespace toaster {

/// Bytes per second at which `path` can be read past the page cache: several threads, large aligned
/// blocks, for about a second. Nothing where the file system cannot read so or the file is small.
std::optional<double> DirectReadRate(const std::filesystem::path& path);

}  // namespace toaster
