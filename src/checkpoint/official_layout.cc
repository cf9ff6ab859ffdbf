#include "checkpoint/official_layout.h"

#include <fmt/format.h>

#include <algorithm>

namespace toaster {
namespace {

// Wide elements first keeps every tensor aligned to its elements; beyond that, a weight stays in
// front of its scales and the matrices of an expert stay together.
void SortForAlignment(PlannedFile& file) {
  std::stable_sort(file.tensors.begin(), file.tensors.end(),
                   [](const PlannedTensor& a, const PlannedTensor& b) {
                     return StoredTypeSize(a.type) > StoredTypeSize(b.type);
                   });
}

size_t ShardOf(const Config& config, const TensorSpec& spec) {
  if (spec.name == "embed.weight") return 0;
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  if (spec.block < 0) return layers + 1;
  const auto block = static_cast<size_t>(spec.block);
  return block < layers ? block + 1 : block + 2;
}

}  // namespace

int64_t PlannedTensor::bytes() const {
  int64_t count = StoredTypeSize(type);
  for (const int64_t extent : shape) count *= extent;
  return count;
}

int64_t PlannedFile::bytes() const {
  int64_t sum = 0;
  for (const PlannedTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

std::vector<PlannedTensor> StoredTensors(const Config& config, const TensorSpec& spec) {
  const std::vector<int64_t> shape = spec.columns == 0
                                         ? std::vector<int64_t>{spec.rows}
                                         : std::vector<int64_t>{spec.rows, spec.columns};
  const std::vector<int64_t> tiles = {(spec.rows + 127) / 128, (spec.columns + 127) / 128};
  switch (spec.role) {
    case TensorRole::kLinear:
      if (!config.quantised) break;
      return {{spec.name, StoredType::kF8E4m3, shape},
              {ScaleName(spec.name), StoredType::kF8E8m0, tiles}};
    case TensorRole::kExpertLinear:
      if (!config.quantised) break;
      if (config.expert_dtype == "fp8") {
        return {{spec.name, StoredType::kF8E4m3, shape},
                {ScaleName(spec.name), StoredType::kF32, tiles}};
      }
      return {{spec.name, StoredType::kI8, {spec.rows, spec.columns / 2}},
              {ScaleName(spec.name), StoredType::kF8E8m0, {spec.rows, spec.columns / 32}}};
    case TensorRole::kFloatMatrix:
    case TensorRole::kFloatVector:
      return {{spec.name, StoredType::kF32, shape}};
    case TensorRole::kIndexTable:
      return {{spec.name, StoredType::kI64, shape}};
    case TensorRole::kBf16Matrix:
    case TensorRole::kNorm:
      break;
  }
  return {{spec.name, StoredType::kBf16, shape}};
}

std::vector<PlannedFile> OfficialShards(const Config& config) {
  std::vector<PlannedFile> files(static_cast<size_t>(config.total_blocks()) + 2);
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
  }
  for (const TensorSpec& spec : ListTensors(config)) {
    PlannedFile& file = files[ShardOf(config, spec)];
    for (PlannedTensor& tensor : StoredTensors(config, spec)) {
      file.tensors.push_back(std::move(tensor));
    }
  }
  for (PlannedFile& file : files) SortForAlignment(file);
  return files;
}

std::vector<PlannedFile> SingleFile(const Config& config) {
  PlannedFile file{"model.safetensors", {}};
  for (const TensorSpec& spec : ListTensors(config)) {
    for (PlannedTensor& tensor : StoredTensors(config, spec)) {
      file.tensors.push_back(std::move(tensor));
    }
  }
  SortForAlignment(file);
  return {file};
}

}  // namespace toaster
