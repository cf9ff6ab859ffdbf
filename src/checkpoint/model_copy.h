#pragma once

#include <filesystem>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace toaster {

/// The files of a second copy of a model in files, in the order of its shards: files of the same
/// names in `directory`. Compares sizes, headers and samples of the contents, which tell another
/// model or another training state, not a single damaged number. Throws Error(kNotFound) or
/// Error(kInvalidArgument) naming the first file that is missing or differs.
std::vector<std::filesystem::path> FindModelCopy(const Checkpoint& model,
                                                 const std::filesystem::path& directory);

}  // namespace toaster
