#pragma once

// Executes the run list of a recorded set of test vectors and returns every tensor such a set
// holds, so that a backend can be compared with the recording layer by layer.
// docs/formats/recorded_runs.md lists names and shapes.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/registry.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// A result: floats or integers, of one shape.
struct RecordedTensor {
  std::vector<int64_t> shape;
  std::vector<float> floats;
  std::vector<int32_t> integers;  ///< used if not empty, or if is_integer
  bool is_integer = false;
};
using RecordedTensors = std::map<std::string, RecordedTensor>;

/// What to execute; each run starts with empty caches. Counts of tokens taken from the front of the
/// token list.
struct RunList {
  std::vector<int64_t> prefill;                     ///< lengths
  std::vector<std::pair<int64_t, int64_t>> decode;  ///< prompt length, steps
  int64_t trace = 0;                                ///< prompt length
  std::pair<int64_t, int64_t> greedy = {0, 0};      ///< prompt length, steps
  std::pair<int64_t, int64_t> mtp = {0, 0};         ///< prompt length, steps

  /// Reads the "runs" member of a golden.json. Throws Error(kCorruptFile) naming the member.
  static RunList Parse(std::string_view json, const std::string& origin);
};

/// Runs the whole list in one numerics ("official." or "fp32." in front of each name), the prompt
/// cut into chunks of `chunk` tokens (0: in one piece). `inputs` holds "tokens" and, for the single
/// steps official.local.*, the traced inputs; without those the single steps are left out.
RecordedTensors RecordRuns(const Config& config, const ModelWeights& weights,
                           const BackendOptions& options, const RunList& runs,
                           const SafetensorsFile& inputs, int64_t chunk);

}  // namespace toaster
