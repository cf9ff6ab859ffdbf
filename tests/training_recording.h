#pragma once

// Recorded gradients, and the rules by which a result is held against them (tests/golden/train).
//
// Recorded values were computed with sums in double. The index gives for each tensor its root mean
// square and, relative to it, the noise (rms and largest) that float sums in various orders showed;
// where roundings can flip it also gives the deviation of runs that were pushed across them. A
// result is tight within ten times the noise plus a small floor, and flipped within twice the
// deviation.

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tensor/tensor.h"

namespace toaster {

enum class Verdict { kTight, kFlipped, kMismatch };

class TrainingRecording {
 public:
  /// `name`.safetensors and `name`.json of tests/golden/train.
  explicit TrainingRecording(const std::string& name);

  bool Has(const std::string& name) const { return file_.Find(name) != nullptr; }
  const StoredTensor& Stored(const std::string& name) const;
  /// A float tensor of at most four dimensions; a scalar has shape [1].
  Tensor Floats(const std::string& name) const;
  std::vector<int32_t> Integers(const std::string& name) const;
  const nlohmann::json& index() const { return index_; }
  const SafetensorsFile& file() const { return file_; }

  /// Holds `values` against the tensor `name`; the line says what is off and is empty if nothing
  /// is. `may_flip`: whether roundings take part. `noise_name`: whose noise counts, if another's.
  Verdict Judge(const std::string& name, std::span<const float> values, bool may_flip,
                std::string* line, const std::string& noise_name = "") const;

 private:
  SafetensorsFile file_;
  nlohmann::json index_;
};

}  // namespace toaster
