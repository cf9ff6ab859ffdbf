#include "engine/running_model.h"

#include <utility>

namespace toaster {

RunningModel::RunningModel(LoadedModel loaded, const BackendOptions& options)
    : RunningModel(std::move(loaded), options, MemoryPlan(), {}) {}

RunningModel::RunningModel(LoadedModel loaded, const BackendOptions& options,
                           const MemoryPlan& plan, WeightOptions weights)
    : loaded_(std::move(loaded)),
      plan_(plan),
      resident_(plan.streams
                    ? std::make_unique<ResidentWeights>(loaded_, weights.reads, weights.progress)
                    : nullptr),
      embedding_(plan.streams ? std::make_unique<EmbeddingRows>(loaded_, weights.copies) : nullptr),
      backend_(CreateBackend(options)),
      mapped_(plan.streams ? nullptr : std::make_unique<MappedExperts>(loaded_)),
      store_(plan.streams ? std::make_unique<ExpertStore>(
                                loaded_, ExpertStoreOptions{.memory_bytes = plan.expert_bytes,
                                                            .forecasts = weights.forecasts,
                                                            .copies = std::move(weights.copies),
                                                            .history = std::move(weights.history),
                                                            .note = std::move(weights.note),
                                                            .reads = std::move(weights.reads)})
                          : nullptr),
      model_(loaded_.config, loaded_.weights, *backend_,
             store_ ? static_cast<ExpertSupply*>(store_.get()) : mapped_.get(), embedding_.get()) {}

}  // namespace toaster
