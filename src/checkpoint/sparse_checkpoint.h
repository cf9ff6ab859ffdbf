#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "checkpoint/official_layout.h"
#include "checkpoint/save_weights.h"
#include "model/config.h"

namespace toaster::test {

/// Writes a checkpoint whose headers and sizes are the true ones and whose data are holes, all
/// zeros: a model of any size on hardly any disk, for measuring how it is opened.
inline void WriteSparseCheckpoint(const std::filesystem::path& directory, const Config& config) {
  std::ofstream(directory / "config.json") << config.ToJson();
  std::ofstream index(directory / "model.safetensors.index.json");
  index << "{\"weight_map\":{";
  const char* comma = "";
  for (const PlannedFile& file : OfficialShards(config)) {
    const std::string head = SafetensorsHead(file.tensors);
    std::ofstream(directory / file.name, std::ios::binary) << head;
    std::filesystem::resize_file(directory / file.name,
                                 head.size() + static_cast<uint64_t>(file.bytes()));
    for (const PlannedTensor& tensor : file.tensors) {
      index << comma << '"' << tensor.name << "\":\"" << file.name << '"';
      comma = ",";
    }
  }
  index << "}}";
}

}  // namespace toaster::test
