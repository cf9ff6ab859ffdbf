#include "model/block.h"

#include <algorithm>
#include <utility>

namespace toaster {

namespace {

// Feeds a compressor with the projections that Linear made of the layer input.
void RunCompressor(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                   const CompressorWeights& weights, bool indexer_key, const Tensor& values,
                   const Tensor& scores, std::span<const CompressTarget> targets) {
  backend.Compress(values, scores, CompressParametersFor(block, weights, indexer_key),
                   batch.segments, targets);
}

// Brings in the rows that Attend will read, if they are not in memory.
void NeedSelected(const BlockBatch& batch, const Selection& selection) {
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const PagedRows& entries = batch.caches[s]->entries;
    if (!entries.lazy()) continue;
    if (selection.all) {
      entries.NeedAll();
      continue;
    }
    const Segment& segment = batch.segments[s];
    for (int64_t row = segment.first_row; row < segment.first_row + segment.rows; ++row) {
      for (const int32_t entry : selection.entries[static_cast<size_t>(row)]) entries.Need(entry);
    }
  }
}

// The choice of a hash-routed layer; empty for others.
void LookUpExperts(const BlockContext& block, std::span<const int32_t> tokens,
                   std::vector<int32_t>& experts) {
  experts.clear();
  if (!block.config.hash_routed(block.index)) return;
  for (const int32_t token : tokens) {
    for (int64_t i = 0; i < block.config.num_experts_per_tok; ++i) {
      experts.push_back(static_cast<int32_t>(block.weights.ffn.tid2eid.At(token, i)));
    }
  }
}

// Where a result goes: to the tape, if it is wanted there, else to the workspace.
template <typename Kept, typename Result>
Result& Place(Kept* kept, Result Kept::*field, Result& otherwise) {
  return kept == nullptr ? otherwise : kept->*field;
}

// A sub-layer's hyper-connection and norm, and where its results are kept.
struct Half {
  const HyperWeights& hyper;
  const Vector& norm;
  HyperTape BlockTape::*tape;
  Tensor BlockSaved::*input, BlockSaved::*output;
};

// The hyper-connection around sublayer(normalised input, output).
template <typename Sublayer>
void ForwardHalf(Backend& backend, const Config& config, const Half& half, Tensor& streams,
                 BlockWorkspace& w, BlockSaved* saved, const Sublayer& sublayer) {
  HyperTape* tape = saved != nullptr && saved->tape ? &(*saved->tape.*half.tape) : nullptr;
  Tensor& before = Place(tape, &HyperTape::streams, streams);
  Tensor& read = Place(tape, &HyperTape::read, w.input);
  Tensor& post = Place(tape, &HyperTape::post, w.post);
  Tensor& comb = Place(tape, &HyperTape::comb, w.comb);
  Tensor& input = Place(saved, half.input, w.normed);
  Tensor& output = Place(saved, half.output, w.sub_output);
  if (tape != nullptr) std::swap(before, streams);
  backend.HyperPre(before, HyperParametersFor(config, half.hyper), read, post, comb);
  backend.RmsNorm(read, half.norm, static_cast<float>(config.rms_norm_eps), input);
  sublayer(input, output);
  backend.HyperPost(output, post, comb, before, streams);
}

}  // namespace

EntryShape EntryShapeOf(const Config& config) {
  return {config.head_dim - config.qk_rope_head_dim, config.qk_rope_head_dim};
}

ExpertMatrices MatricesOf(const ExpertWeights& expert) {
  return {&expert.w1, &expert.w2, &expert.w3};
}

CompressParameters CompressParametersFor(const BlockContext& block,
                                         const CompressorWeights& weights, bool indexer_key) {
  return {block.config.ratio(block.index),
          weights.ape,
          weights.norm,
          static_cast<float>(block.config.rms_norm_eps),
          block.frequencies,
          indexer_key};
}

RouteParameters RouteParametersFor(const BlockContext& block,
                                   std::span<const int32_t> table_experts) {
  const MoeWeights& weights = block.weights.ffn;
  return {weights.gate, block.config.hash_routed(block.index) ? nullptr : &weights.bias,
          table_experts, block.config.num_experts_per_tok,
          static_cast<float>(block.config.routed_scaling_factor)};
}

HyperParameters HyperParametersFor(const Config& config, const HyperWeights& weights) {
  return {weights.fn,
          weights.base,
          weights.scale,
          config.hc_sinkhorn_iters,
          static_cast<float>(config.hc_eps),
          static_cast<float>(config.rms_norm_eps)};
}

void ForwardAttention(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                      const Tensor& input, BlockWorkspace& workspace, Tensor& output,
                      BlockSaved* saved) {
  const Config& config = block.config;
  const AttentionWeights& weights = block.weights.attn;
  const CompressorWeights &compressor = weights.compressor,
                          &indexer_compressor = weights.indexer.compressor;
  const int64_t rows = input.rows(), ratio = config.ratio(block.index);
  const EntryShape shape = EntryShapeOf(config);
  const int64_t row_bytes = backend.EntryRowBytes(shape);
  const auto eps = static_cast<float>(config.rms_norm_eps);
  BlockWorkspace& w = workspace;
  BlockTape* tape = saved ? saved->tape.get() : nullptr;

  // Everything that is projected from the layer input, in one pass.
  Tensor& latent_product = Place(tape, &BlockTape::latent_product, w.query_latent);
  Tensor& kv_product = Place(tape, &BlockTape::kv_product, w.kv);
  Tensor& values = Place(tape, &BlockTape::values, w.values);
  Tensor& scores = Place(tape, &BlockTape::scores, w.scores);
  Tensor& index_values = Place(tape, &BlockTape::index_values, w.index_values);
  Tensor& index_gates = Place(tape, &BlockTape::index_gates, w.index_gates);
  Tensor& index_weights = Place(tape, &BlockTape::index_weights, w.index_weights);
  std::vector<Projection> projections = {{&weights.wq_a, &latent_product},
                                         {&weights.wkv, &kv_product}};
  if (ratio != 0) {
    projections.push_back({&compressor.wkv, &values, false});
    projections.push_back({&compressor.wgate, &scores, false});
  }
  if (ratio == 4) {
    projections.push_back({&indexer_compressor.wkv, &index_values, false});
    projections.push_back({&indexer_compressor.wgate, &index_gates, false});
    projections.push_back({&weights.indexer.weights_proj, &index_weights});
  }
  backend.Linear(input, projections);

  // Queries.
  Tensor& latent = Place(tape, &BlockTape::latent, w.query_latent);
  Tensor& queries = Place(tape, &BlockTape::queries, w.queries);
  Tensor& index_queries = Place(tape, &BlockTape::index_queries, w.index_queries);
  backend.RmsNorm(latent_product, weights.q_norm, eps, latent);
  projections = {{&weights.wq_b, &queries}};
  if (ratio == 4) projections.push_back({&weights.indexer.wq_b, &index_queries});
  backend.Linear(latent, projections);
  queries.Reshape({rows, config.num_attention_heads, config.head_dim});
  if (tape != nullptr) tape->query_products.CopyFrom(queries);
  backend.PrepareQueries(queries, eps, batch.rotation);

  // Window entries of this chunk.
  AlignedArray<uint8_t>& window_entries = Place(tape, &BlockTape::entries, w.entries);
  backend.RmsNorm(kv_product, weights.kv_norm, eps, w.kv);
  window_entries.Resize(rows * row_bytes);
  backend.StoreEntries(w.kv, shape, batch.rotation, window_entries.data());

  // Compressed entries, and which of them each row sees.
  w.sources.clear();
  w.targets.clear();
  w.index_targets.clear();
  w.keys.clear();
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    BlockCache& cache = *batch.caches[s];
    w.sources.push_back({cache.window.data(),
                         window_entries.data() + batch.segments[s].first_row * row_bytes,
                         ratio == 0 ? nullptr : &cache.entries});
    w.targets.push_back({&cache.tail, &cache.entries});
    w.index_targets.push_back({&cache.indexer_tail, &cache.keys});
    w.keys.push_back(&cache.keys);
  }
  w.selection.all = true;
  if (ratio != 0)
    RunCompressor(backend, block, batch, compressor, false, values, scores, w.targets);
  if (ratio == 4) {
    RunCompressor(backend, block, batch, indexer_compressor, true, index_values, index_gates,
                  w.index_targets);
    const bool choose = std::any_of(w.keys.begin(), w.keys.end(), [&](const PagedRows* keys) {
      return keys->size() > config.index_topk;
    });
    if (choose || saved != nullptr) {
      for (const PagedRows* keys : w.keys) keys->NeedAll();
      index_queries.Reshape({rows, config.index_n_heads, config.index_head_dim});
      backend.SelectEntries(index_queries, index_weights, batch.rotation, batch.segments, w.keys,
                            config.index_topk, w.selection,
                            saved != nullptr && tape == nullptr ? &saved->index_scores : nullptr);
    }
  }

  if (ratio != 0) NeedSelected(batch, w.selection);
  const AttendParameters parameters{config.sliding_window, ratio, shape, weights.attn_sink,
                                    w.selection};
  Tensor& attended = Place(tape, &BlockTape::attended, w.attended);
  Tensor& grouped = Place(tape, &BlockTape::grouped, w.grouped);
  backend.Attend(queries, parameters, batch.rotation, batch.segments, w.sources, attended);
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    batch.caches[s]->KeepWindow(w.sources[s].chunk, segment.start, segment.rows, row_bytes,
                                config.sliding_window);
  }
  attended.Reshape({rows, config.num_attention_heads * config.head_dim});
  backend.GroupedLinear(attended, weights.wo_a, config.o_groups, grouped);
  backend.Linear(grouped, std::vector<Projection>{{&weights.wo_b, &output}});
  if (saved != nullptr) saved->selection = w.selection;
}

void ForwardMoe(Backend& backend, const BlockContext& block, std::span<const int32_t> tokens,
                const Tensor& input, BlockWorkspace& workspace, Tensor& output, BlockSaved* saved) {
  const Config& config = block.config;
  const MoeWeights& weights = block.weights.ffn;
  BlockWorkspace& w = workspace;
  LookUpExperts(block, tokens, w.table_experts);
  backend.Route(input, RouteParametersFor(block, w.table_experts), w.routing);
  w.experts.clear();
  if (block.experts == nullptr) {
    for (const ExpertWeights& expert : weights.experts) w.experts.push_back(MatricesOf(expert));
  }
  ResidentExperts resident(w.experts);
  ExpertSource& experts =
      block.experts == nullptr ? resident : block.experts->Open(block.index, w.routing);
  backend.Experts(input, w.routing, experts, MatricesOf(weights.shared),
                  static_cast<float>(config.swiglu_limit), output);
  if (saved != nullptr) {
    saved->routing.experts_per_token = w.routing.experts_per_token;
    saved->routing.experts = w.routing.experts;
    saved->routing.weights = w.routing.weights;
    saved->routing.scores.CopyFrom(w.routing.scores);
  }
}

void ForecastExperts(Backend& backend, const BlockContext& block, std::span<const int32_t> tokens,
                     const Tensor* streams, BlockWorkspace& workspace) {
  const Config& config = block.config;
  BlockWorkspace& w = workspace;
  LookUpExperts(block, tokens, w.table_experts);
  if (!w.table_experts.empty()) {
    w.forecast.experts_per_token = config.num_experts_per_tok;
    w.forecast.experts = w.table_experts;
    w.forecast.weights.clear();
  } else {
    backend.HyperPre(*streams, HyperParametersFor(config, block.weights.hc_ffn), w.input, w.post,
                     w.comb);
    backend.RmsNorm(w.input, block.weights.ffn_norm, static_cast<float>(config.rms_norm_eps),
                    w.normed);
    backend.Route(w.normed, RouteParametersFor(block, {}), w.forecast);
  }
  block.experts->Expect(block.index, w.forecast);
}

void ForwardAttentionHalf(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                          Tensor& streams, BlockWorkspace& workspace, BlockSaved* saved) {
  const Half half{block.weights.hc_attn, block.weights.attn_norm, &BlockTape::attn,
                  &BlockSaved::attn_in, &BlockSaved::attn_out};
  ForwardHalf(backend, block.config, half, streams, workspace, saved,
              [&](const Tensor& input, Tensor& output) {
                ForwardAttention(backend, block, batch, input, workspace, output, saved);
              });
}

void ForwardMoeHalf(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                    Tensor& streams, BlockWorkspace& workspace, BlockSaved* saved) {
  const Half half{block.weights.hc_ffn, block.weights.ffn_norm, &BlockTape::ffn,
                  &BlockSaved::ffn_in, &BlockSaved::ffn_out};
  ForwardHalf(backend, block.config, half, streams, workspace, saved,
              [&](const Tensor& input, Tensor& output) {
                ForwardMoe(backend, block, batch.tokens, input, workspace, output, saved);
              });
}

void ForwardBlock(Backend& backend, const BlockContext& block, const BlockBatch& batch,
                  Tensor& streams, BlockWorkspace& workspace, BlockSaved* saved) {
  ForwardAttentionHalf(backend, block, batch, streams, workspace, saved);
  ForwardMoeHalf(backend, block, batch, streams, workspace, saved);
}

}  // namespace toaster
