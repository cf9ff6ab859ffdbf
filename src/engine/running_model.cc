#include "engine/running_model.h"

#include <fmt/format.h>

#include <utility>

namespace toaster {

ExpertScaleCheck::ExpertScaleCheck(const LoadedModel& model)
    : model_(model),
      checked_(static_cast<size_t>(model.config.total_blocks()),
               std::vector<bool>(static_cast<size_t>(model.config.n_routed_experts))) {}

void ExpertScaleCheck::BeforeExperts(int64_t block, const Routing& routing) {
  const int64_t layers = model_.config.num_hidden_layers;
  const bool draft = block >= layers;
  const BlockWeights& weights =
      draft ? model_.weights.drafts[static_cast<size_t>(block - layers)].block
            : model_.weights.layers[static_cast<size_t>(block)];
  std::vector<bool>& checked = checked_[static_cast<size_t>(block)];
  for (const int32_t number : routing.experts) {
    const auto at = static_cast<size_t>(number);
    if (checked[at]) continue;
    const ExpertWeights& expert = weights.ffn.experts[at];
    const std::string prefix = draft ? fmt::format("mtp.{}.ffn.experts.{}.", block - layers, number)
                                     : fmt::format("layers.{}.ffn.experts.{}.", block, number);
    for (const auto& [name, matrix] :
         {std::pair{"w1", &expert.w1}, {"w2", &expert.w2}, {"w3", &expert.w3}}) {
      const std::string tensor = prefix + name + ".weight";
      CheckScales(*matrix, model_.checkpoint.ExpectedFile(tensor) + ": " + tensor);
    }
    checked[at] = true;
  }
}

RunningModel::RunningModel(LoadedModel loaded, const BackendOptions& options)
    : loaded_(std::move(loaded)),
      backend_(CreateBackend(options)),
      scale_check_(loaded_),
      model_(loaded_.config, loaded_.weights, *backend_, &scale_check_) {}

}  // namespace toaster
