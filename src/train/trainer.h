#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/registry.h"
#include "base/thread_pool.h"
#include "train/training_checkpoint.h"
#include "train/training_config.h"
#include "train/training_data.h"
#include "train/training_pass.h"

namespace toaster {

/// Additions and multiplications of matrix products for one token, forward and backward: six for
/// every weight that it meets. Attention scores and the optimiser are not counted.
double TrainingFlopsPerToken(const Config& config);

/// What a step came to.
struct StepReport {
  int64_t step = 0;  ///< counted from 1
  size_t stage = 0;
  LossValues losses;
  double rate = 0;
  double gradient_norm = 0;  ///< before clipping
  int64_t tokens = 0;
  double seconds = 0;
  double busiest_expert = 0;  ///< most tokens of an expert over the mean of its layer, worst layer
  std::optional<double> validation;  ///< mean cross-entropy, where it was measured
};

/// What a run tells and asks.
struct TrainingEvents {
  std::function<void(const StepReport&)> step;
  std::function<void(const std::string&)> note;  ///< a line that a user should see
  std::function<bool()> cancelled;               ///< asked between steps
};

/// One run of training. Everything that decides its numbers is in the configuration and the data:
/// not the threads, not where it was interrupted. One thread at a time.
class Trainer {
 public:
  /// Borrows `data` and `validation`. Goes on from the latest sound checkpoint in the output
  /// folder, or begins anew; damaged ones are named by a note and passed over. Throws
  /// Error(kInvalidArgument) if the folder belongs to another run or the data hold nothing to
  /// learn, and what loading `config.init` throws.
  Trainer(const TrainingConfig& config, TrainingData& data, const TrainingData& validation,
          const BackendOptions& options, TrainingEvents events);
  ~Trainer();

  /// Trains to the end; writes checkpoints on the way. False if cancelled, after a checkpoint.
  /// Throws Error(kIo) if a checkpoint cannot be written; those before it stay.
  bool Run();
  /// Writes the model as it stands in the official layout, with the tokenizer and prompt texts of
  /// `companions`.
  void Export(const std::filesystem::path& companions, const std::filesystem::path& folder);

  int64_t step() const { return state_.step; }
  const TrainedWeights& weights() const { return *weights_; }
  /// Mean cross-entropy of the validation documents; 0 without any.
  double Validate();

 private:
  struct Computation;

  void EnterStage(size_t stage);
  void Restore();
  /// The last of the checkpoints of these steps that is whole, its weights and optimiser in place;
  /// damaged ones are named in a note.
  std::optional<TrainingState> LoadLatest(const std::vector<int64_t>& steps);
  StepReport Step();
  bool IsSpike(const StepReport& report) const;
  void RollBack(const StepReport& report);
  void Save();
  std::filesystem::path Folder() const { return config_.output / "checkpoints"; }

  const TrainingConfig config_;
  TrainingData& data_;
  const TrainingData& validation_;
  const BackendOptions options_;
  const TrainingEvents events_;
  ThreadPool pool_;
  std::string identity_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<BackwardBackend> backward_;
  std::unique_ptr<TrainedWeights> weights_;
  std::unique_ptr<Computation> computation_;  ///< of the stage at hand
  std::unique_ptr<Optimizer> optimizer_;
  TrainingState state_;
  size_t stage_ = 0;
};

}  // namespace toaster
