#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/block.h"
#include "model/cache.h"
#include "model/config.h"
#include "model/embedding_source.h"
#include "model/rope_frequencies.h"
#include "model/weights.h"

namespace toaster {

/// The tokens that one sequence adds in a step, and its cache. They continue at cache->length().
struct SequenceChunk {
  std::span<const int32_t> tokens;
  SequenceCache* cache = nullptr;
};

/// A forward pass that is run half a layer at a time (attention, or experts), so that others can go
/// ahead of it in between. Its caches are in no defined state until it is complete, and in no other
/// pass.
struct ForwardPass {
  std::vector<SequenceChunk> chunks;  ///< the tokens are borrowed
  Tensor streams;  ///< [rows, hc_mult, d] after the halves done; rows in the order of the chunks
  int64_t halves_done = 0;

  // Of all chunks together, set by Model::Begin().
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;
  Rotation window_rotation, compressed_rotation;
};

/// What a forward pass keeps when asked: the embedding, and each block's intermediate results with
/// the streams after it.
struct ForwardSaved {
  Tensor embed;  ///< [rows, 1, d]
  struct Block {
    BlockSaved results;
    Tensor hidden;  ///< [rows, hc_mult, d]; not kept for backward
  };
  std::vector<Block> blocks;
  /// Whether the blocks keep what BackwardBlock() needs; set by the caller.
  bool for_backward = false;
  /// Draft blocks, for the backward pass: inputs of the two norms, and of the two projections
  /// [rows, d] and [rows * hc_mult, d].
  Tensor draft_embed, draft_streams, draft_e, draft_h;
};

/// Told after each layer but the last how many of the layers are done; false stops the pass.
using LayerProgress = std::function<bool(int64_t done, int64_t layers)>;

/// One model on one backend: the forward pass from tokens to logits. Holds buffers, so one thread
/// at a time; the weights and the backend are borrowed and outlive it. Bits do not depend on how
/// tokens are cut into chunks or which sequences share a step.
class Model {
 public:
  /// `experts` and `embedding`, if given, are borrowed too; without, those of `weights` are in
  /// memory.
  Model(const Config& config, const ModelWeights& weights, Backend& backend,
        ExpertSupply* experts = nullptr, EmbeddingSource* embedding = nullptr);

  const Config& config() const { return config_; }
  Backend& backend() { return backend_; }
  std::unique_ptr<SequenceCache> NewCache() const;

  /// Runs every layer over the chunks' tokens, advances their caches, and leaves the streams [rows,
  /// hc_mult, d] (rows in the order of the chunks) in `streams`. Throws Error(kInvalidArgument),
  /// before anything changes, for a token outside the vocabulary, an empty chunk, or a sequence
  /// that would outgrow max_position_embeddings, and Error(kIo) for a row of the embedding that
  /// cannot be read. Any other error, and Error(kCancelled) when
  /// `progress` says so, leaves the caches between two layers: only a snapshot brings them back.
  void Forward(std::span<const SequenceChunk> chunks, Tensor& streams,
               ForwardSaved* saved = nullptr, const LayerProgress& progress = nullptr);

  /// The same half a layer at a time: sets up everything behind `chunks`. Throws as Forward() does,
  /// before anything changes.
  void Begin(ForwardPass& pass);
  /// Runs the next half layer of a pass that has one left; false if it was the last: then the
  /// caches have advanced. Throws as Forward() does.
  bool RunHalf(ForwardPass& pass, ForwardSaved* saved = nullptr);
  int64_t halves() const { return 2 * config_.num_hidden_layers; }

  /// Logits [rows, vocabulary] in float of streams [rows, hc_mult, d].
  void Logits(const Tensor& streams, Tensor& logits);

  /// Draft (MTP) block `draft` (section 13): row i of `streams` is the main model's state
  /// at a position, tokens[i] the token one position later. Runs at positions
  /// cache->draft_length(draft)... and leaves its own streams in `output`.
  void ForwardDraft(int64_t draft, std::span<const int32_t> tokens, const Tensor& streams,
                    SequenceCache& cache, Tensor& output, ForwardSaved* saved = nullptr);
  /// The same for several sequences; the rows of `streams` follow their order.
  void ForwardDraft(int64_t draft, std::span<const SequenceChunk> chunks, const Tensor& streams,
                    Tensor& output, ForwardSaved* saved = nullptr);
  void DraftLogits(int64_t draft, const Tensor& streams, Tensor& logits);

  /// The parts of a block, for checks of single steps: see block.h.
  BlockContext Block(int64_t index) const;
  /// Rotation of `segments` for the layer kind of `ratio`.
  void MakeRotation(std::span<const Segment> segments, int64_t ratio, Rotation& rotation) const;

 private:
  void CheckTokens(std::span<const int32_t> tokens) const;
  void Embed(std::span<const int32_t> tokens, int64_t copies, Tensor& output);
  void HeadLogits(const Tensor& streams, const HyperWeights& hyper, const Vector& norm,
                  Tensor& logits);

  const Config& config_;
  const ModelWeights& weights_;
  Backend& backend_;
  ExpertSupply* experts_;
  EmbeddingSource* embedding_;
  ModelFrequencies frequencies_;
  BlockWorkspace workspace_;
  ForwardPass pass_;  // of Forward()
  Tensor head_, draft_embed_, draft_e_, draft_h_;
  std::vector<int32_t> tokens_;
  std::vector<Segment> segments_;
  std::vector<BlockCache*> caches_;
};

}  // namespace toaster
