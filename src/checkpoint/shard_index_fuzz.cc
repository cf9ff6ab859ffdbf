// Any bytes as the index of a sharded checkpoint: either sound or an Error.

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace toaster;
  try {
    const ShardIndex index = ParseShardIndex({reinterpret_cast<const char*>(data), size}, "fuzz");
    CHECK(!index.weight_map.empty());
    for (const auto& [name, file] : index.weight_map) CHECK(file < index.files.size());
    for (const std::string& file : index.files) {
      CHECK(!file.empty() && file != "." && file != "..");
      CHECK(file.find('/') == std::string::npos && file.find('\0') == std::string::npos);
    }
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
