#include "model/backward_block.h"

namespace toaster {

namespace {

// What a backward step through one block is given.
struct Step {
  BackwardBackend& backend;
  const BlockContext& block;
  const BlockBatch& batch;
  const BlockSaved& saved;
  ParameterArrays& gradients;
  float eps() const { return static_cast<float>(block.config.rms_norm_eps); }
};

// Gradients of a compressor from those of its entries. `grad_input` is null for the indexer's: its
// loss does not reach the layer's input.
void CompressorBackward(const Step& step, const CompressorWeights& weights, bool indexer_key,
                        const Tensor& values, const Tensor& scores,
                        std::span<const Tensor> grad_entries, Tensor* grad_input) {
  Tensor grad_values, grad_scores;
  step.backend.Compress(values, scores, CompressParametersFor(step.block, weights, indexer_key),
                        step.batch.segments, grad_entries, step.gradients.Of(weights.ape),
                        step.gradients.Of(weights.norm), grad_values, grad_scores);
  step.backend.Linear(step.saved.attn_in,
                      std::vector<ProjectionGradient>{
                          {&weights.wkv, &grad_values, step.gradients.Of(weights.wkv)},
                          {&weights.wgate, &grad_scores, step.gradients.Of(weights.wgate)}},
                      grad_input);
}

void IndexerBackward(const Step& step, const EntryProbabilities& probabilities, IndexLoss& loss) {
  const IndexerWeights& weights = step.block.weights.attn.indexer;
  const BlockTape& tape = *step.saved.tape;
  std::vector<const PagedRows*> keys;
  for (const BlockCache* cache : step.batch.caches) keys.push_back(&cache->keys);
  Tensor grad_queries, grad_weights;
  std::vector<Tensor> grad_keys;
  step.backend.SelectEntries(tape.index_queries, tape.index_weights, step.batch.rotation,
                             step.batch.segments, keys, step.saved.selection, probabilities, loss,
                             grad_queries, grad_weights, grad_keys);
  grad_queries.Reshape({grad_queries.rows(), grad_queries.width()});
  step.backend.Linear(tape.latent,
                      std::vector<ProjectionGradient>{
                          {&weights.wq_b, &grad_queries, step.gradients.Of(weights.wq_b)}},
                      nullptr);
  step.backend.Linear(step.saved.attn_in,
                      std::vector<ProjectionGradient>{{&weights.weights_proj, &grad_weights,
                                                       step.gradients.Of(weights.weights_proj)}},
                      nullptr);
  CompressorBackward(step, weights.compressor, true, tape.index_values, tape.index_gates, grad_keys,
                     nullptr);
}

// From the gradient of the attention's output to that of its normalised input (set).
void AttentionBackward(const Step& step, const Tensor& grad_output, IndexLoss& loss,
                       Tensor& grad_input) {
  const Config& config = step.block.config;
  const AttentionWeights& weights = step.block.weights.attn;
  const BlockTape& tape = *step.saved.tape;
  const int64_t rows = grad_output.rows(), ratio = config.ratio(step.block.index);
  BackwardBackend& backend = step.backend;
  ParameterArrays& gradients = step.gradients;

  Tensor grad_grouped({rows, weights.wo_a.rows}), grad_attended;
  grad_grouped.Fill(0);
  backend.Linear(
      tape.grouped,
      std::vector<ProjectionGradient>{{&weights.wo_b, &grad_output, gradients.Of(weights.wo_b)}},
      &grad_grouped);
  backend.GroupedLinear(tape.attended, weights.wo_a, config.o_groups, grad_grouped,
                        gradients.Of(weights.wo_a), grad_attended);
  grad_attended.Reshape({rows, config.num_attention_heads, config.head_dim});

  const EntryShape shape = EntryShapeOf(config);
  const int64_t row_bytes = rows == 0 ? 0 : tape.entries.size() / rows;
  std::vector<AttendSource> sources;
  for (size_t s = 0; s < step.batch.segments.size(); ++s) {
    sources.push_back({nullptr, tape.entries.data() + step.batch.segments[s].first_row * row_bytes,
                       ratio == 0 ? nullptr : &step.batch.caches[s]->entries});
  }
  const AttendParameters parameters{config.sliding_window, ratio, shape, weights.attn_sink,
                                    step.saved.selection};
  Tensor grad_queries, grad_kv;
  std::vector<Tensor> grad_entries;
  EntryProbabilities probabilities;
  backend.Attend(tape.queries, parameters, step.batch.rotation, step.batch.segments, sources,
                 grad_attended, grad_queries, grad_kv, grad_entries,
                 gradients.Of(weights.attn_sink), ratio == 4 ? &probabilities : nullptr);

  // Keys and values, queries.
  backend.StoreEntries(step.batch.rotation, grad_kv);
  backend.RmsNorm(tape.kv_product, weights.kv_norm, step.eps(), grad_kv,
                  gradients.Of(weights.kv_norm), grad_kv);
  backend.PrepareQueries(tape.query_products, step.eps(), step.batch.rotation, grad_queries);
  grad_queries.Reshape({rows, grad_queries.width()});
  Tensor grad_latent({rows, config.q_lora_rank});
  grad_latent.Fill(0);
  backend.Linear(
      tape.latent,
      std::vector<ProjectionGradient>{{&weights.wq_b, &grad_queries, gradients.Of(weights.wq_b)}},
      &grad_latent);
  backend.RmsNorm(tape.latent_product, weights.q_norm, step.eps(), grad_latent,
                  gradients.Of(weights.q_norm), grad_latent);

  grad_input.Reshape({rows, config.hidden_size});
  grad_input.Fill(0);
  backend.Linear(
      step.saved.attn_in,
      std::vector<ProjectionGradient>{{&weights.wq_a, &grad_latent, gradients.Of(weights.wq_a)},
                                      {&weights.wkv, &grad_kv, gradients.Of(weights.wkv)}},
      &grad_input);
  if (ratio != 0) {
    CompressorBackward(step, weights.compressor, false, tape.values, tape.scores, grad_entries,
                       &grad_input);
  }
  if (ratio == 4) IndexerBackward(step, probabilities, loss);
}

void MoeBackward(const Step& step, const Tensor& grad_output, BalanceLoss& balance,
                 Tensor& grad_input) {
  const MoeWeights& weights = step.block.weights.ffn;
  std::vector<ExpertMatrices> experts;
  std::vector<ExpertGradients> gradients;
  for (const ExpertWeights& expert : weights.experts) {
    experts.push_back(MatricesOf(expert));
    gradients.push_back(step.gradients.Of(expert));
  }
  std::vector<float> grad_weights;
  step.backend.Experts(step.saved.ffn_in, step.saved.routing, experts, MatricesOf(weights.shared),
                       static_cast<float>(step.block.config.swiglu_limit), grad_output, gradients,
                       step.gradients.Of(weights.shared), grad_input, grad_weights);
  step.backend.Route(step.saved.ffn_in, RouteParametersFor(step.block, {}), step.saved.routing,
                     step.batch.segments, grad_weights, balance, step.gradients.Of(weights.gate),
                     grad_input);
}

}  // namespace

void BackwardBlock(BackwardBackend& backend, const BlockContext& block, const BlockBatch& batch,
                   const BlockSaved& saved, BlockLosses& losses, Tensor& grad_streams,
                   ParameterArrays& gradients) {
  CHECK(saved.tape != nullptr, "the forward pass kept no tape");
  for (const Segment& segment : batch.segments)
    CHECK(segment.start == 0, "a segment starts at position {}", segment.start);
  const Step step{backend, block, batch, saved, gradients};
  const BlockTape& tape = *saved.tape;
  const BlockWeights& weights = block.weights;
  Tensor grad_output, grad_post, grad_comb, grad_input;

  backend.HyperPost(saved.ffn_out, tape.ffn.post, tape.ffn.comb, tape.ffn.streams, grad_streams,
                    grad_output, grad_post, grad_comb);
  MoeBackward(step, grad_output, losses.balance, grad_input);
  backend.RmsNorm(tape.ffn.read, weights.ffn_norm, step.eps(), grad_input,
                  gradients.Of(weights.ffn_norm), grad_input);
  backend.HyperPre(tape.ffn.streams, HyperParametersFor(block.config, weights.hc_ffn), grad_input,
                   grad_post, grad_comb, gradients.Of(weights.hc_ffn), grad_streams);

  backend.HyperPost(saved.attn_out, tape.attn.post, tape.attn.comb, tape.attn.streams, grad_streams,
                    grad_output, grad_post, grad_comb);
  AttentionBackward(step, grad_output, losses.index, grad_input);
  backend.RmsNorm(tape.attn.read, weights.attn_norm, step.eps(), grad_input,
                  gradients.Of(weights.attn_norm), grad_input);
  backend.HyperPre(tape.attn.streams, HyperParametersFor(block.config, weights.hc_attn), grad_input,
                   grad_post, grad_comb, gradients.Of(weights.hc_attn), grad_streams);
}

}  // namespace toaster
