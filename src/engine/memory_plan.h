#pragma once

// How one number of bytes is split between weights, experts, caches and activations.

#include <cstdint>

#include "checkpoint/load_weights.h"
#include "model/config.h"

namespace toaster {

/// What the weights of a model take in memory.
struct WeightSizes {
  int64_t dense_bytes = 0;      ///< all but routed experts and the embedding table
  int64_t embedding_bytes = 0;  ///< the embedding table
  int64_t expert_bytes = 0;     ///< one routed expert
  int64_t experts = 0;          ///< of all blocks
  int64_t total() const { return dense_bytes + embedding_bytes + experts * expert_bytes; }
};

/// Of a model in files, alignment for direct reads included.
WeightSizes SizesOf(const LoadedModel& model);
/// Of a model as it would be released.
WeightSizes SizesOf(const Config& config);

struct MemoryRequest {
  int64_t memory = 0;     ///< for everything; 0: what is available, less a sixteenth
  int64_t available = 0;  ///< see AvailableMemory(); 0 where not known
  int64_t context = 0;    ///< tokens of each sequence; 0: kUsualContext or the model's limit
  int64_t sequences = 1;  ///< at a time
  int64_t prefix_bytes =
      -1;                   ///< for beginnings kept between requests; -1: an eighth of what is left
  int64_t chunk = 0;        ///< tokens per forward pass; 0: what suits
  int64_t other_bytes = 0;  ///< that the caller takes besides
  bool in_files = true;     ///< whether experts could be read from files
};

struct MemoryPlan {
  static constexpr int64_t kUsualContext = 32768;
  /// The program itself: its code, tokenizer, thread stacks and heap.
  static constexpr int64_t kProgramBytes = int64_t{96} << 20;

  int64_t memory = 0;  ///< 0: not known, and nothing is bounded
  int64_t context = 0, sequences = 1;
  bool streams = false;  ///< experts are read when needed; otherwise all weights are mapped
  int64_t dense_bytes = 0;
  int64_t embedding_bytes = 0;  ///< of the rows that texts usually need
  int64_t expert_bytes = 0;     ///< for experts; of all of them unless `streams`
  int64_t experts_kept = 0;     ///< that fit
  int64_t cache_bytes = 0;      ///< of the sequences at full length
  int64_t prefix_bytes = 0;
  int64_t workspace_bytes = 0;  ///< activations of a chunk
  int64_t chunk = 0;
  int64_t other_bytes = 0;

  int64_t total() const {
    return kProgramBytes + other_bytes + dense_bytes + embedding_bytes + expert_bytes +
           cache_bytes + prefix_bytes + workspace_bytes;
  }
};

/// Splits the memory: what weights outside of experts, caches and a chunk of activations need comes
/// first, experts get the rest. Weights stay mapped where all of them fit or nothing is known of
/// the memory. Throws Error(kInvalidArgument) where it is too small, naming the least that would
/// do.
MemoryPlan PlanMemory(const Config& config, const WeightSizes& sizes, const MemoryRequest& request);

}  // namespace toaster
