#pragma once

// A recorded set of test vectors, and the rules by which a result is held against it. The limits
// are those of the recordings: see tests/golden/README.md.

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/load_weights.h"
#include "checkpoint/safetensors.h"
#include "engine/record_runs.h"

namespace toaster {

class GoldenSet {
 public:
  explicit GoldenSet(const std::string& name);

  const LoadedModel& model() const { return model_; }
  const RunList& runs() const { return runs_; }
  const SafetensorsFile& recording() const { return recording_; }

  /// A line per tensor of `results` that is missing or out of bounds, for every tensor that the set
  /// holds in this numerics.
  std::vector<std::string> Mismatches(const RecordedTensors& results, Numerics numerics) const;

  static std::filesystem::path Folder(const std::string& name);
  static std::vector<std::string> Names();

 private:
  LoadedModel model_;
  RunList runs_;
  SafetensorsFile recording_;
  std::string json_;
};

}  // namespace toaster
