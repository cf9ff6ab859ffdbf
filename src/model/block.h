#pragma once

// One transformer block: hyper-connections around attention and mixture of experts (section
// 4).

#include <memory>
#include <optional>
#include <span>

#include "backend/backend.h"
#include "model/cache.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// Where blocks get their routed experts from. What it throws leaves the block's caches in no
/// defined state. One thread.
class ExpertSupply {
 public:
  virtual ~ExpertSupply() = default;
  /// Told what the router of block `block` chose, the moment it has spoken. The result hands out
  /// these experts and serves until the next call.
  virtual ExpertSource& Open(int64_t block, const Routing& routing) = 0;
  /// Whether it pays to know ahead of Open() what a block will probably choose.
  virtual bool WantsForecasts() const { return false; }
  /// Such a forecast; `routing` need not come true. A later one for the same block replaces it.
  virtual void Expect(int64_t block, const Routing& routing) {}
};

/// Everything about the block that does not change from call to call.
struct BlockContext {
  const Config& config;
  const BlockWeights& weights;
  int64_t index = 0;                   ///< 0.. main layers, then draft blocks
  std::span<const float> frequencies;  ///< of its layer kind
  ExpertSupply* experts = nullptr;     ///< null: those of `weights` are in memory
};

/// The rows that a block processes together: segments of one or more sequences.
struct BlockBatch {
  std::span<const int32_t> tokens;  ///< per row; hash-routed layers choose by them
  std::span<const Segment> segments;
  std::span<BlockCache* const> caches;  ///< of this block, one per segment
  const Rotation& rotation;             ///< of this block's layer kind
};

/// What BackwardBlock() needs of the hyper-connection around a sub-layer.
struct HyperTape {
  Tensor streams;           ///< before the sub-layer
  Tensor read, post, comb;  ///< of HyperPre: the sub-layer's input before the norm, and the rest
};

/// What BackwardBlock() needs besides the results: every operation's input before it was changed.
struct BlockTape {
  HyperTape attn, ffn;
  Tensor latent_product, latent;        ///< before and after q_norm
  Tensor query_products, queries;       ///< before and after PrepareQueries
  Tensor kv_product;                    ///< before kv_norm
  AlignedArray<uint8_t> entries;        ///< the batch's window entries
  Tensor values, scores;                ///< of the compressor
  Tensor index_values, index_gates;     ///< of the indexer's
  Tensor index_queries, index_weights;  ///< as SelectEntries left them
  Tensor attended, grouped;
};

/// The block's intermediate results, kept when the caller asks for them.
struct BlockSaved {
  Tensor attn_in;   ///< [rows, d], after the norm
  Tensor attn_out;  ///< [rows, d]
  Tensor ffn_in;
  Tensor ffn_out;
  Routing routing;
  Selection selection;  ///< `all` unless the layer's ratio is 4
  Tensor index_scores;  ///< [rows, keys], -infinity where a block is not complete; empty unless the
                        ///< ratio is 4, not kept with a tape
  std::unique_ptr<BlockTape> tape;  ///< filled if it is there
};

/// Buffers that a block needs while it runs, kept between calls.
struct BlockWorkspace {
  Tensor input, post, comb, normed, sub_output;
  Tensor query_latent, queries, kv, attended, grouped;
  Tensor values, scores, index_values, index_gates, index_queries, index_weights;
  AlignedArray<uint8_t> entries;
  Selection selection;
  Routing routing, forecast;
  std::vector<int32_t> table_experts;
  std::vector<AttendSource> sources;
  std::vector<CompressTarget> targets, index_targets;
  std::vector<const PagedRows*> keys;
  std::vector<ExpertMatrices> experts;
};

/// Runs the block over `batch`, updating `streams` [rows, hc_mult, d] in place and appending to the
/// caches. With `saved`, keeps the intermediate results; serving passes nullptr.
void ForwardBlock(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                  Tensor& streams, BlockWorkspace& workspace, BlockSaved* saved);

/// Its halves, each with its hyper-connection: nothing but `streams` and the caches is handed from
/// one to the other, so that work of other sequences may come between them.
void ForwardAttentionHalf(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                          Tensor& streams, BlockWorkspace& workspace, BlockSaved* saved);
void ForwardMoeHalf(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                    Tensor& streams, BlockWorkspace& workspace, BlockSaved* saved);

/// The attention sub-layer alone: from its normalised input [rows, d] to `output` [rows, d].
/// Appends to the caches.
void ForwardAttention(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                      const Tensor& input, BlockWorkspace& workspace, Tensor& output,
                      BlockSaved* saved);

/// The mixture of experts alone: from its normalised input [rows, d] to `output` [rows, d].
void ForwardMoe(Backend& backend, const BlockContext& block, std::span<const int32_t> tokens,
                const Tensor& input, BlockWorkspace& workspace, Tensor& output, BlockSaved* saved);

/// Tells the block's supply which experts it will probably choose for `tokens`. The table of a
/// hash-routed block says so exactly; another's router is asked about `streams` [rows, hc_mult, d]
/// as they are, without what is still to be added to them before it.
void ForecastExperts(Backend& backend, const BlockContext& block, std::span<const int32_t> tokens,
                     const Tensor* streams, BlockWorkspace& workspace);

/// The operations' parameters, as the forward and the backward pass give them.
EntryShape EntryShapeOf(const Config& config);
ExpertMatrices MatricesOf(const ExpertWeights& expert);
CompressParameters CompressParametersFor(const BlockContext& block,
                                         const CompressorWeights& weights, bool indexer_key);
/// `table_experts`: the choice of a hash-routed layer.
RouteParameters RouteParametersFor(const BlockContext& block,
                                   std::span<const int32_t> table_experts);
/// The hyper-connection constants of a sub-layer or head.
HyperParameters HyperParametersFor(const Config& config, const HyperWeights& weights);

}  // namespace toaster
