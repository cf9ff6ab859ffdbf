#pragma once

// How the released checkpoints store a model: which tensors, of which types, in which files.

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// A tensor to be written.
struct PlannedTensor {
  std::string name;
  StoredType type = StoredType::kU8;
  std::vector<int64_t> shape;

  int64_t bytes() const;
};

/// A file to be written, its tensors in the order of their data.
struct PlannedFile {
  std::string name;
  std::vector<PlannedTensor> tensors;

  int64_t bytes() const;  ///< of the tensors, without the header
};

/// What stands in the files for one tensor of the model: itself and, if it is quantised, its
/// scales. A config with `quantised` has E4M3 matrices with UE8M0 scales and packed E2M1 experts,
/// or with an expert_dtype of "fp8" E4M3 experts with F32 scales; without, everything is BF16.
std::vector<PlannedTensor> StoredTensors(const Config& config, const TensorSpec& spec);

/// The released sharding: the embedding, one file per layer, the rest of the root tensors, one file
/// per draft block.
std::vector<PlannedFile> OfficialShards(const Config& config);

/// The same tensors in one file, "model.safetensors".
std::vector<PlannedFile> SingleFile(const Config& config);

}  // namespace toaster
