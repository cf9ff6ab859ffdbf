#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace toaster {

/// What a model.safetensors.index.json says: which shard holds which tensor.
struct ShardIndex {
  std::vector<std::string> files;                        ///< in the order of their first mention
  std::unordered_map<std::string, uint32_t> weight_map;  ///< tensor name -> number in `files`
};

/// Parses the text of an index; keys other than "weight_map" are ignored. File names stay inside
/// the checkpoint's directory. Takes memory in proportion to the text. Throws Error(kCorruptFile)
/// naming `origin` and the entry.
ShardIndex ParseShardIndex(std::string_view text, const std::string& origin);

}  // namespace toaster
