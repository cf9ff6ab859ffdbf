#include "model/weights.h"

namespace toaster {

ModelWeights EmptyWeights(const Config& config) {
  ModelWeights weights;
  const auto experts = static_cast<size_t>(config.n_routed_experts);
  weights.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  weights.drafts.resize(static_cast<size_t>(config.num_nextn_predict_layers));
  for (BlockWeights& block : weights.layers) block.ffn.experts.resize(experts);
  for (DraftWeights& draft : weights.drafts) draft.block.ffn.experts.resize(experts);
  return weights;
}

std::vector<TensorSpec> ListTensors(const Config& config) {
  std::vector<TensorSpec> specs;
  ModelWeights weights = EmptyWeights(config);
  VisitTensors(config, weights, [&](const TensorSpec& spec, auto&) { specs.push_back(spec); });
  return specs;
}

}  // namespace toaster
