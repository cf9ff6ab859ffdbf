#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "checkpoint/load_weights.h"
#include "checkpoint/official_layout.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// A tensor of a model and what stands for it in the files.
struct SummaryTensor {
  TensorSpec spec;
  std::vector<PlannedTensor> stored;
};

/// What `toaster inspect` tells: of a model on disk, or of a config in the official layout.
struct ModelSummary {
  Config config;
  std::vector<SummaryTensor> tensors;
  std::vector<std::string> notes;
  size_t files = 0;

  static ModelSummary Of(const LoadedModel& model);
  static ModelSummary Of(const Config& config);
};

nlohmann::ordered_json SummaryJson(const ModelSummary& summary);

/// Lines for people, each ended.
std::string SummaryText(const ModelSummary& summary);

}  // namespace toaster
