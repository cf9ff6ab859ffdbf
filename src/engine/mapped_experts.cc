#include "engine/mapped_experts.h"

namespace toaster {

MappedExperts::MappedExperts(const LoadedModel& model) : model_(model) {
  for (int64_t block = 0; block < model.config.total_blocks(); ++block) {
    std::vector<ExpertMatrices>& matrices = matrices_.emplace_back();
    for (const ExpertWeights& expert : model.weights.block(block).ffn.experts)
      matrices.push_back(MatricesOf(expert));
    checked_.emplace_back(matrices.size());
  }
  for (const std::vector<ExpertMatrices>& matrices : matrices_) sources_.emplace_back(matrices);
}

ExpertSource& MappedExperts::Open(int64_t block, const Routing& routing) {
  const auto at = static_cast<size_t>(block);
  const std::vector<ExpertWeights>& experts = model_.weights.block(block).ffn.experts;
  for (const int32_t number : routing.experts) {
    const auto expert = static_cast<size_t>(number);
    if (checked_[at][expert]) continue;
    CheckExpertScales(model_, block, number, experts[expert]);
    checked_[at][expert] = true;
  }
  return sources_[at];
}

}  // namespace toaster
