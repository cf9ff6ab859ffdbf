#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "checkpoint/load_weights.h"
#include "engine/embedding_rows.h"
#include "engine/expert_store.h"
#include "engine/mapped_experts.h"
#include "engine/memory_plan.h"
#include "engine/resident_weights.h"
#include "model/model.h"

namespace toaster {

/// How a RunningModel reads weights that do not stay mapped.
struct WeightOptions {
  bool forecasts = true;  ///< see ExpertStoreOptions, also for the next four
  std::vector<std::vector<std::filesystem::path>> copies;
  std::filesystem::path history;
  std::function<void(const std::string&)> note;
  DirectReadOptions reads;
  ReadProgress progress;  ///< of reading the other weights
};

/// A loaded checkpoint with the backend and the forward pass that run it. Owns all of them; not
/// movable, since they point into each other. One thread at a time.
class RunningModel {
 public:
  /// All weights stay in the mapped files. Throws what creating the backend throws.
  RunningModel(LoadedModel loaded, const BackendOptions& options);
  /// A plan that streams has the experts in as much memory as it says, filled when they are needed,
  /// rows of the embedding read likewise, and the other weights read into memory first. Throws what
  /// ResidentWeights and ExpertStore throw, too.
  RunningModel(LoadedModel loaded, const BackendOptions& options, const MemoryPlan& plan,
               WeightOptions weights);
  RunningModel(const RunningModel&) = delete;
  RunningModel& operator=(const RunningModel&) = delete;

  const LoadedModel& loaded() const { return loaded_; }
  const Config& config() const { return loaded_.config; }
  Backend& backend() { return *backend_; }
  Model& model() { return model_; }
  const MemoryPlan& plan() const { return plan_; }
  /// Null if all experts are in the mapped files.
  const ExpertStore* expert_store() const { return store_.get(); }

 private:
  LoadedModel loaded_;
  MemoryPlan plan_;
  std::unique_ptr<ResidentWeights> resident_;
  std::unique_ptr<EmbeddingRows> embedding_;  // null: the table is mapped
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<MappedExperts> mapped_;
  std::unique_ptr<ExpertStore> store_;
  Model model_;
};

}  // namespace toaster
