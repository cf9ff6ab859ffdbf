#pragma once

#include <memory>
#include <vector>

#include "backend/registry.h"
#include "checkpoint/load_weights.h"
#include "model/model.h"

namespace toaster {

/// Checks the scales of a routed expert the first time it is used, since reading all of them at
/// load time would touch a large part of the files. Throws Error(kCorruptFile) naming the tensor.
class ExpertScaleCheck : public ExpertObserver {
 public:
  /// The model is borrowed.
  explicit ExpertScaleCheck(const LoadedModel& model);
  void BeforeExperts(int64_t block, const Routing& routing) override;

 private:
  const LoadedModel& model_;
  std::vector<std::vector<bool>> checked_;  // [block][expert]
};

/// A loaded checkpoint with the backend and the forward pass that run it. Owns all of them; not
/// movable, since they point into each other. One thread at a time.
class RunningModel {
 public:
  RunningModel(LoadedModel loaded, const BackendOptions& options);
  RunningModel(const RunningModel&) = delete;
  RunningModel& operator=(const RunningModel&) = delete;

  const LoadedModel& loaded() const { return loaded_; }
  const Config& config() const { return loaded_.config; }
  Backend& backend() { return *backend_; }
  Model& model() { return model_; }

 private:
  LoadedModel loaded_;
  std::unique_ptr<Backend> backend_;
  ExpertScaleCheck scale_check_;
  Model model_;
};

}  // namespace toaster
