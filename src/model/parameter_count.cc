#include "model/parameter_count.h"

namespace toaster {

int64_t ParametersOf(const TensorSpec& spec) {
  if (spec.role == TensorRole::kIndexTable) return 0;
  return spec.columns == 0 ? spec.rows : spec.rows * spec.columns;
}

ParameterCount CountParameters(const Config& config) {
  ParameterCount count;
  int64_t routed = 0;
  for (const TensorSpec& spec : ListTensors(config)) {
    const int64_t parameters = ParametersOf(spec);
    if (spec.block >= config.num_hidden_layers) {
      count.drafts += parameters;
      continue;
    }
    count.total += parameters;
    if (spec.routed_expert) {
      routed += parameters;
    } else if (spec.name != "embed.weight") {
      count.active += parameters;
    }
  }
  count.active += routed / config.n_routed_experts * config.num_experts_per_tok;
  return count;
}

}  // namespace toaster
