#pragma once

#include <cstdint>
#include <functional>

#include "base/direct_read.h"
#include "checkpoint/load_weights.h"

namespace toaster {

/// Told how much of the weights has been read.
using ReadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

/// Everything of a model but its routed experts and the embedding table, whose rows are
/// read when they are needed (EmbeddingRows), in huge pages of this process: unlike pages of a
/// mapped file they are not taken away when memory is short.
class ResidentWeights {
 public:
  /// Reads the weights, past the page cache, and makes the views of `model` point to them. Throws
  /// Error(kIo), and Error(kOutOfMemory). This object has to outlive the views.
  ResidentWeights(LoadedModel& model, const DirectReadOptions& reads, const ReadProgress& progress);

  /// What such an object takes for `model`.
  static int64_t BytesFor(const LoadedModel& model);

 private:
  ReadMemory memory_;
};

}  // namespace toaster
