#include "model/gradients.h"

#include <algorithm>

namespace toaster {

ParameterArrays::ParameterArrays(const Config& config, const ModelWeights& weights) {
  int64_t size = 0;
  VisitTensors(config, weights, [&](const TensorSpec& spec, const auto& field) {
    const bool selection_bias =
        spec.name.size() >= 9 && spec.name.compare(spec.name.size() - 9, 9, "gate.bias") == 0;
    if (spec.role == TensorRole::kIndexTable || selection_bias) return;
    const int64_t count = spec.rows * std::max<int64_t>(spec.columns, 1);
    parts_.push_back({spec, size, count});
    begins_[&field] = size;
    size += (count + 15) / 16 * 16;  // every part begins on a cache line
  });
  values_.Resize(size);
  Clear();
}

const ParameterArrays::Part* ParameterArrays::Find(const std::string& name) const {
  const auto found = std::find_if(parts_.begin(), parts_.end(),
                                  [&](const Part& part) { return part.spec.name == name; });
  return found == parts_.end() ? nullptr : &*found;
}

float* ParameterArrays::At(const void* field) {
  const auto found = begins_.find(field);
  CHECK(found != begins_.end(), "a field of another model");
  return values_.data() + found->second;
}

}  // namespace toaster
