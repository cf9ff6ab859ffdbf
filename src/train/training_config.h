#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "train/optimizer.h"
#include "train/training_pass.h"

namespace toaster {

/// A stretch of a run in which the same is trained in the same arithmetic.
struct TrainingStage {
  int64_t steps = 0;
  bool dense = false;  ///< layers of ratio 4 attend to every complete entry, not to selected ones
  bool indexer_only = false;  ///< nothing but the indexers learns
  bool quantised = true;      ///< E4M3 and E2M1 weights as they will be served; otherwise BF16
};

/// What a run trains, on what and how: the JSON file of `toaster train`, docs/formats/training.md.
struct TrainingConfig {
  Config model;
  std::filesystem::path init;       ///< a checkpoint to start from; empty: random weights
  std::filesystem::path tokenizer;  ///< a folder; with what belongs to the model beside it; empty:
                                    ///< that of `init`, or bytes
  std::vector<std::filesystem::path> data;
  std::vector<std::filesystem::path> validation;  ///< or:
  double validation_share = 0;                    ///< of the documents of `data`, set aside
  std::filesystem::path output;

  int64_t sequence_tokens = 1024;  ///< longer documents are cut
  int64_t batch_tokens = 4096;     ///< of a step, at most
  int64_t pass_tokens = 4096;      ///< of a forward and backward pass, at most: bounds the memory
  std::vector<TrainingStage> stages;
  Schedule learning_rate;  ///< its `steps` are those of all stages
  OptimizerSettings optimizer;
  LossWeights losses;
  float mtp_final = 0.1f;     ///< replaces losses.mtp where the learning rate begins to fall
  double gradient_clip = 1;   ///< longest gradient; 0: any
  double spike_ratio = 2;     ///< a loss so many times its average is a spike; 0: none is
  double init_deviation = 0;  ///< of random weights; 0: 0.02
  uint64_t seed = 0;
  int64_t checkpoint_steps = 100;  ///< between checkpoints, to which spikes return

  // These do not change what is trained.
  int64_t kept_checkpoints = 2;
  int64_t validation_steps = 100;
  int64_t validation_tokens = 65536;  ///< of the validation documents, at most

  /// Reads and checks a configuration. Paths in it are relative to `folder`. Throws
  /// Error(kInvalidArgument) naming `origin` and the key: unknown, missing, of a wrong type or
  /// range, or in contradiction to another.
  static TrainingConfig Parse(std::string_view json, const std::filesystem::path& folder,
                              const std::string& origin);
  static TrainingConfig Load(const std::filesystem::path& file);

  int64_t steps() const { return learning_rate.steps; }
  /// The stage of a step, counted from 0, by number.
  size_t StageOf(int64_t step) const;
  /// The loss weights of a step.
  LossWeights LossesAt(int64_t step) const;
  /// Everything that decides what comes out, the data apart, as one text: a run is resumed only
  /// under the same.
  std::string Identity() const;
};

}  // namespace toaster
