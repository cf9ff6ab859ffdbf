#pragma once

#include <filesystem>

#include "base/thread_pool.h"
#include "train/trained_weights.h"

namespace toaster {

/// Writes the model that the forward pass saw last, in `released` storage, as a checkpoint in the
/// official layout: its logits are those of training bit for bit. What else belongs to a model
/// (tokenizer.json, tokenizer_config.json, generation_config.json, the encoding folder) is copied
/// from `companions` where it is there; an empty path has none. A directory with a config.json is
/// complete. Throws Error(kIo) as SaveCheckpoint() does.
void ExportModel(const TrainedWeights& weights, const std::filesystem::path& companions,
                 const std::filesystem::path& directory, ThreadPool& pool);

}  // namespace toaster
