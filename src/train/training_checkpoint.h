#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "train/optimizer.h"
#include "train/trained_weights.h"
#include "train/training_data.h"

namespace toaster {

/// Where a run stands, beside its weights and moments.
struct TrainingState {
  int64_t step = 0;  ///< steps done
  DataPosition position;
  double average_loss = 0;  ///< of the latest steps, which spikes are measured against; 0: none yet
  int64_t rollbacks = 0;    ///< since the last step that came through to a checkpoint
};

/// A checkpoint of a run, docs/formats/training_checkpoint.md: folder/step-NNNNNNNN.safetensors.
std::filesystem::path TrainingCheckpointFile(const std::filesystem::path& folder, int64_t step);

/// The steps of which the folder has a checkpoint, rising.
std::vector<int64_t> TrainingCheckpoints(const std::filesystem::path& folder);

/// Writes one under a temporary name, brings it to disk and renames it. `identity` says which run
/// it belongs to. Throws Error(kIo) naming the file if the disk is full or refuses; the older ones
/// are still there then.
void SaveTrainingCheckpoint(const std::filesystem::path& folder, const std::string& identity,
                            const TrainingState& state, TrainedWeights& weights,
                            Optimizer& optimizer, ThreadPool& pool);

/// Reads one: everything is checked before anything is changed. Throws Error(kCorruptFile) naming
/// the file if it is damaged, and Error(kInvalidArgument) if it belongs to another run. Call
/// weights.Store() after.
TrainingState LoadTrainingCheckpoint(const std::filesystem::path& folder, int64_t step,
                                     const std::string& identity, TrainedWeights& weights,
                                     Optimizer& optimizer);

}  // namespace toaster
