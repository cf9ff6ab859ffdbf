#pragma once

#include <vector>

#include "checkpoint/load_weights.h"
#include "model/block.h"

namespace toaster {

/// Routed experts seen in place in the mapped shards. Their scales are checked when they are first
/// used, since reading all of them at load time would touch a large part of the files; Open()
/// throws Error(kCorruptFile) naming the tensor.
class MappedExperts : public ExpertSupply {
 public:
  /// The model is borrowed.
  explicit MappedExperts(const LoadedModel& model);
  ExpertSource& Open(int64_t block, const Routing& routing) override;

 private:
  const LoadedModel& model_;
  std::vector<std::vector<ExpertMatrices>> matrices_;  // [block][expert]
  std::vector<ResidentExperts> sources_;               // per block
  std::vector<std::vector<bool>> checked_;             // [block][expert]
};

}  // namespace toaster
