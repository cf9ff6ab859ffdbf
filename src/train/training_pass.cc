#include "train/training_pass.h"

#include <algorithm>

#include "base/check.h"
#include "base/flush_denormals.h"

namespace toaster {

namespace {

// The token `distance` after each of a document's first `rows` tokens, -1 where there is none or it
// is not wanted.
void AppendTargets(const Document& document, int64_t rows, int64_t distance,
                   std::vector<int32_t>& targets) {
  const auto size = static_cast<int64_t>(document.tokens.size());
  for (int64_t i = 0; i < rows; ++i) {
    const auto at = static_cast<size_t>(i + distance);
    const bool counts = i + distance < size && (document.wanted.empty() || document.wanted[at]);
    targets.push_back(counts ? document.tokens[at] : -1);
  }
}

std::vector<Segment> Segments(std::span<const SequenceChunk> chunks) {
  std::vector<Segment> segments;
  int64_t row = 0;
  for (const SequenceChunk& chunk : chunks) {
    const auto rows = static_cast<int64_t>(chunk.tokens.size());
    segments.push_back({row, rows, 0});
    row += rows;
  }
  return segments;
}

void Keep(const Tensor& tensor, std::vector<Tensor>* kept) {
  if (kept == nullptr) return;
  kept->emplace_back();
  kept->back().CopyFrom(tensor);
}

}  // namespace

TrainingPass::TrainingPass(Model& model, const ModelWeights& weights, BackwardBackend& backward)
    : model_(model), weights_(weights), backward_(backward) {
  saved_.for_backward = draft_saved_.for_backward = true;
}

double TrainingPass::Head(const Tensor& streams, const HyperWeights& hyper, const Vector& norm,
                          std::span<const int32_t> targets, float weight,
                          ParameterArrays& gradients, Tensor& grad_streams) {
  const auto eps = static_cast<float>(model_.config().rms_norm_eps);
  const HyperParameters parameters = HyperParametersFor(model_.config(), hyper);
  const auto count =
      std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; });
  Tensor read, normed, grad;
  model_.backend().HyperHead(streams, parameters, read);
  model_.backend().RmsNorm(read, norm, eps, normed);
  const float row_weight = count == 0 ? 0 : weight / static_cast<float>(count);
  const double loss = backward_.CrossEntropy(normed, weights_.head, targets, row_weight,
                                             gradients.Of(weights_.head), grad);
  backward_.RmsNorm(read, norm, eps, grad, gradients.Of(norm), grad);
  backward_.HyperHead(streams, parameters, grad, gradients.Of(hyper), grad_streams);
  return count == 0 ? 0 : loss / static_cast<double>(count);
}

void TrainingPass::RunBlock(int64_t index, const BlockSaved& saved, std::span<const int32_t> tokens,
                            std::span<const Segment> segments, const Rotation& rotation,
                            const LossWeights& loss_weights, LossValues& losses,
                            ParameterArrays& gradients, Tensor& grad_streams) {
  const Config& config = model_.config();
  std::vector<BlockCache*> caches;
  for (const auto& cache : caches_) caches.push_back(&cache->block(index));
  BlockLosses own;
  own.balance.weight = config.hash_routed(index) ? 0 : loss_weights.balance;
  own.index.weight = loss_weights.index;
  BackwardBlock(backward_, model_.Block(index), {tokens, segments, caches, rotation}, saved, own,
                grad_streams, gradients);
  losses.balance += own.balance.value;
  losses.index += own.index.value;
  if (config.hash_routed(index)) return;
  std::vector<int64_t>& loads = losses.loads[static_cast<size_t>(index)];
  loads.assign(static_cast<size_t>(config.n_routed_experts), 0);
  for (const int32_t expert : saved.routing.experts) ++loads[static_cast<size_t>(expert)];
}

void TrainingPass::RunDraft(std::span<const Document> documents, const LossWeights& loss_weights,
                            LossValues& losses, ParameterArrays& gradients, Tensor& grad_streams,
                            std::vector<Tensor>* grad_hidden) {
  const Config& config = model_.config();
  const int64_t n = config.hc_mult, d = config.hidden_size;
  const auto eps = static_cast<float>(config.rms_norm_eps);
  // Row p joins the state at p with token p + 1 and scores token p + 2.
  std::vector<SequenceChunk> chunks;
  std::vector<int64_t> rows;  // of the main model's streams
  std::vector<int32_t> tokens, targets;
  std::vector<std::unique_ptr<SequenceCache>> caches;
  int64_t first = 0;
  for (const Document& document : documents) {
    const auto size = static_cast<int64_t>(document.tokens.size());
    if (size > 1) {
      caches.push_back(model_.NewCache());
      chunks.push_back({document.tokens.subspan(1), caches.back().get()});
      for (int64_t i = 0; i + 1 < size; ++i) rows.push_back(first + i);
      AppendTargets(document, size - 1, 2, targets);
      tokens.insert(tokens.end(), document.tokens.begin() + 1, document.tokens.end());
    }
    first += size;
  }
  if (chunks.empty()) return;
  Tensor states({static_cast<int64_t>(rows.size()), n, d}), output, grad;
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(streams_.Row(rows[i]), n * d, states.Row(static_cast<int64_t>(i)));
  model_.ForwardDraft(0, chunks, states, output, &draft_saved_);

  const DraftWeights& weights = weights_.drafts[0];
  losses.mtp =
      Head(output, weights.hc_head, weights.norm, targets, loss_weights.mtp, gradients, grad);
  Tensor grad_out;
  if (grad_hidden != nullptr) grad_out.CopyFrom(grad);
  const std::vector<Segment> segments = Segments(chunks);
  Rotation rotation;
  model_.MakeRotation(segments, config.ratio(config.num_hidden_layers), rotation);
  std::swap(caches_, caches);
  RunBlock(config.num_hidden_layers, draft_saved_.blocks[0].results, tokens, segments, rotation,
           loss_weights, losses, gradients, grad);
  std::swap(caches_, caches);
  if (grad_hidden != nullptr) Keep(grad, grad_hidden), Keep(grad_out, grad_hidden);

  const auto count = static_cast<int64_t>(rows.size());
  Tensor grad_e, grad_embed({count, d}), grad_h({count * n, d});
  backward_.AddToStreams(grad, grad_e);
  grad_embed.Fill(0);
  backward_.Linear(
      draft_saved_.draft_e,
      std::vector<ProjectionGradient>{{&weights.e_proj, &grad_e, gradients.Of(weights.e_proj)}},
      &grad_embed);
  backward_.RmsNorm(draft_saved_.draft_embed, weights.enorm, eps, grad_embed,
                    gradients.Of(weights.enorm), grad_embed);
  grad_embed.Reshape({count, 1, d});
  backward_.Embed(tokens, grad_embed, gradients.Of(weights_.embed));
  grad.Reshape({count * n, d});
  grad_h.Fill(0);
  backward_.Linear(
      draft_saved_.draft_h,
      std::vector<ProjectionGradient>{{&weights.h_proj, &grad, gradients.Of(weights.h_proj)}},
      &grad_h);
  backward_.RmsNorm(draft_saved_.draft_streams, weights.hnorm, eps, grad_h,
                    gradients.Of(weights.hnorm), grad_h);
  for (size_t i = 0; i < rows.size(); ++i) {
    float* to = grad_streams.Row(rows[i]);
    const float* from = grad_h.data() + static_cast<int64_t>(i) * n * d;
    for (int64_t c = 0; c < n * d; ++c) to[c] += from[c];
  }
}

LossValues TrainingPass::Run(std::span<const Document> documents, const LossWeights& loss_weights,
                             ParameterArrays& gradients, std::vector<Tensor>* grad_hidden) {
  const ScopedFlushDenormals flush;
  const Config& config = model_.config();
  caches_.clear();
  std::vector<SequenceChunk> chunks;
  std::vector<int32_t> tokens, targets;
  for (const Document& document : documents) {
    CHECK(document.wanted.empty() || document.wanted.size() == document.tokens.size(), "{} and {}",
          document.wanted.size(), document.tokens.size());
    caches_.push_back(model_.NewCache());
    chunks.push_back({document.tokens, caches_.back().get()});
    tokens.insert(tokens.end(), document.tokens.begin(), document.tokens.end());
    AppendTargets(document, static_cast<int64_t>(document.tokens.size()), 1, targets);
  }
  model_.Forward(chunks, streams_, &saved_);

  LossValues losses;
  losses.loads.resize(static_cast<size_t>(config.total_blocks()));
  losses.targets =
      std::count_if(targets.begin(), targets.end(), [](int32_t target) { return target >= 0; });
  Tensor grad;
  losses.ce =
      Head(streams_, weights_.hc_head, weights_.norm, targets, loss_weights.ce, gradients, grad);
  std::vector<Tensor> draft_hidden;
  if (!weights_.drafts.empty()) {
    RunDraft(documents, loss_weights, losses, gradients, grad,
             grad_hidden ? &draft_hidden : nullptr);
  }
  const std::vector<Segment> segments = Segments(chunks);
  Rotation window_rotation, compressed_rotation;
  model_.MakeRotation(segments, 0, window_rotation);
  model_.MakeRotation(segments, 1, compressed_rotation);
  Keep(grad, grad_hidden);
  for (int64_t layer = config.num_hidden_layers - 1; layer >= 0; --layer) {
    RunBlock(layer, saved_.blocks[static_cast<size_t>(layer)].results, tokens, segments,
             config.ratio(layer) == 0 ? window_rotation : compressed_rotation, loss_weights, losses,
             gradients, grad);
    Keep(grad, grad_hidden);
  }
  backward_.Embed(tokens, grad, gradients.Of(weights_.embed));
  if (grad_hidden != nullptr) {
    std::reverse(grad_hidden->begin(), grad_hidden->end());
    for (Tensor& tensor : draft_hidden) grad_hidden->push_back(std::move(tensor));
  }
  losses.total = loss_weights.ce * losses.ce + loss_weights.mtp * losses.mtp +
                 loss_weights.balance * losses.balance + loss_weights.index * losses.index;
  return losses;
}

}  // namespace toaster
