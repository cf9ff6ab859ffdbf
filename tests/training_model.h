#pragma once

// The model of a recorded training run, ready to be trained.

#include <memory>
#include <vector>

#include "backend/registry.h"
#include "model/model.h"
#include "train/trained_weights.h"
#include "train/training_pass.h"
#include "training_recording.h"

namespace toaster {

struct TrainingModel {
  /// From the checkpoint that the recording names. Quantised weights are moved off their grid, as
  /// they were for the recording. `qat`: roundings to E4M3 and E2M1, else
  /// none; `dense`: indexers choose every visible entry.
  /// `options` choose the backend; their numerics are ignored.
  TrainingModel(const TrainingRecording& recording, bool qat, bool dense,
                BackendOptions options = {"reference", "", 0, Numerics::kFloat32});

  TrainedWeights weights;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<BackwardBackend> backward;
  Model model;
  std::vector<int32_t> tokens;      ///< of the recording, where it has one batch
  std::vector<Document> documents;  ///< parts of `tokens`
};

}  // namespace toaster
