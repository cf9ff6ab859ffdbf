#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace toaster {

/// The directory of the model that a user names:
///
/// * a directory, or one of the files of a checkpoint (its directory);
/// * `org/name` or `org/name@revision` in the Hugging Face cache, where a revision is a branch, a
///   tag or a full commit, `main` if none is given. Nothing is downloaded.
///
/// What exists as a path wins. Throws Error(kNotFound) that lists where it looked.
std::filesystem::path FindModel(const std::string& model);

/// The Hugging Face caches in the order they are searched: $HF_HUB_CACHE, $HF_HOME/hub,
/// $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub, without those whose variable is not
/// set. They need not exist.
std::vector<std::filesystem::path> HuggingFaceCaches();

}  // namespace toaster
