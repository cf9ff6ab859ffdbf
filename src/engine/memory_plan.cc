#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/units.h"
#include "checkpoint/official_layout.h"
#include "engine/embedding_rows.h"
#include "engine/expert_store.h"
#include "engine/prefill_chunk.h"
#include "engine/resident_weights.h"
#include "model/cache_size.h"

namespace toaster {

namespace {

// A chunk pays its memory back as long as experts are read once for all of its tokens.
constexpr int64_t kMostStreamed = 4096, kLeastChunk = 64;

int64_t ChunkWithin(int64_t bytes, int64_t most, int64_t token_bytes) {
  const int64_t tokens = bytes / token_bytes;
  return std::clamp(tokens / kLeastChunk * kLeastChunk, kLeastChunk, most);
}

}  // namespace

WeightSizes SizesOf(const LoadedModel& model) {
  const std::vector<ExpertPlace> places = FindExperts(model);
  WeightSizes sizes;
  sizes.dense_bytes = ResidentWeights::BytesFor(model);
  sizes.embedding_bytes = model.weights.embed.rows * model.weights.embed.row_bytes();
  sizes.experts = static_cast<int64_t>(places.size());
  for (const ExpertPlace& place : places)
    sizes.expert_bytes = std::max(sizes.expert_bytes, place.buffer_bytes);
  return sizes;
}

WeightSizes SizesOf(const Config& config) {
  WeightSizes sizes;
  sizes.experts = config.total_blocks() * config.n_routed_experts;
  int64_t routed = 0;
  for (const TensorSpec& spec : ListTensors(config)) {
    int64_t& bytes = spec.routed_expert            ? routed
                     : spec.name == "embed.weight" ? sizes.embedding_bytes
                                                   : sizes.dense_bytes;
    for (const PlannedTensor& tensor : StoredTensors(config, spec)) bytes += tensor.bytes();
  }
  sizes.expert_bytes = routed / std::max<int64_t>(1, sizes.experts);
  return sizes;
}

MemoryPlan PlanMemory(const Config& config, const WeightSizes& sizes,
                      const MemoryRequest& request) {
  MemoryPlan plan;
  // What is available now is not left to the last byte.
  plan.memory = request.memory > 0 ? request.memory : request.available - request.available / 16;
  plan.sequences = request.sequences;
  const int64_t limit = config.max_position_embeddings;
  plan.context = request.context > 0 ? request.context : MemoryPlan::kUsualContext;
  if (limit > 0) plan.context = std::min(plan.context, limit);
  plan.dense_bytes = sizes.dense_bytes;
  plan.embedding_bytes = sizes.embedding_bytes / std::max<int64_t>(1, config.vocab_size) *
                         std::min(config.vocab_size, EmbeddingRows::kUsualRows);
  plan.cache_bytes =
      plan.sequences *
      ModelCacheBytes(config, plan.context, config.num_nextn_predict_layers > 0).total();
  plan.other_bytes = request.other_bytes;
  const int64_t fixed = MemoryPlan::kProgramBytes + plan.other_bytes + plan.dense_bytes +
                        plan.embedding_bytes + plan.cache_bytes;
  const int64_t token_bytes = WorkspaceBytesPerToken(config, request.sequences > 1);
  const auto use_chunk = [&](int64_t chosen) {
    plan.chunk = request.chunk > 0 ? request.chunk : chosen;
    plan.workspace_bytes = plan.chunk * token_bytes;
  };
  const auto use_prefixes = [&](int64_t left) {
    plan.prefix_bytes =
        request.prefix_bytes >= 0 ? request.prefix_bytes : std::max<int64_t>(0, left / 8);
  };

  // Everything in memory, if it fits.
  use_chunk(PrefillChunk(config, plan.memory));
  use_prefixes(plan.memory - fixed - sizes.experts * sizes.expert_bytes);
  plan.expert_bytes = sizes.experts * sizes.expert_bytes;
  plan.experts_kept = sizes.experts;
  if (!request.in_files || plan.memory <= 0 || plan.total() <= plan.memory) return plan;

  plan.streams = true;
  const int64_t left = plan.memory - fixed;
  const int64_t least_experts = 2 * config.num_experts_per_tok * sizes.expert_bytes;
  const int64_t least_workspace = (request.chunk > 0 ? request.chunk : kLeastChunk) * token_bytes;
  const int64_t least =
      fixed + least_experts + least_workspace + std::max<int64_t>(0, request.prefix_bytes);
  if (plan.memory < least) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format(
            "{} of memory are too little: {} of weights outside of experts, {} of cache for "
            "{} tokens, and two blocks' experts of a token take {}; give more --memory{}",
            BytesText(static_cast<double>(plan.memory)),
            BytesText(static_cast<double>(plan.dense_bytes)),
            BytesText(static_cast<double>(plan.cache_bytes)),
            GroupedText(plan.context * plan.sequences), BytesText(static_cast<double>(least)),
            plan.cache_bytes > plan.dense_bytes / 8 ? " or a smaller --context" : ""));
  }
  // Activations get up to a quarter: a longer chunk reads every expert less often in a prefill, an
  // expert kept saves reads in decode.
  use_chunk(ChunkWithin((left - least_experts) / 4, kMostStreamed, token_bytes));
  use_prefixes((left - plan.workspace_bytes - least_experts) / 4);
  const int64_t for_experts = left - plan.workspace_bytes - plan.prefix_bytes;
  plan.experts_kept = std::min(sizes.experts, for_experts / sizes.expert_bytes);
  plan.expert_bytes = plan.experts_kept * sizes.expert_bytes;
  return plan;
}

}  // namespace toaster
