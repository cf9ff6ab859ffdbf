#include "model/model.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"
#include "base/flush_denormals.h"
#include "tensor/rotate.h"

namespace toaster {

namespace {

/// A tensor whose place another takes for a while.
class Lent {
 public:
  Lent(Tensor& place, Tensor& tensor) : place_(place), tensor_(tensor) {
    std::swap(place_, tensor_);
  }
  ~Lent() { std::swap(place_, tensor_); }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

 private:
  Tensor &place_, &tensor_;
};

}  // namespace

Model::Model(const Config& config, const ModelWeights& weights, Backend& backend,
             ExpertSupply* experts, EmbeddingSource* embedding)
    : config_(config),
      weights_(weights),
      backend_(backend),
      experts_(experts),
      embedding_(embedding),
      frequencies_(config) {}

std::unique_ptr<SequenceCache> Model::NewCache() const {
  return std::make_unique<SequenceCache>(config_, backend_);
}

BlockContext Model::Block(int64_t index) const {
  return {config_, weights_.block(index), index, frequencies_.ForRatio(config_.ratio(index)),
          experts_};
}

void Model::MakeRotation(std::span<const Segment> segments, int64_t ratio,
                         Rotation& rotation) const {
  const std::vector<float>& frequencies = frequencies_.ForRatio(ratio);
  int64_t rows = 0;
  for (const Segment& segment : segments) rows += segment.rows;
  const auto pairs = static_cast<int64_t>(frequencies.size());
  rotation.cosine.Reshape({rows, pairs});
  rotation.sine.Reshape({rows, pairs});
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t row = segment.first_row + i;
      RotationAngles(segment.start + i, frequencies, rotation.cosine.Row(row),
                     rotation.sine.Row(row));
    }
  }
}

void Model::CheckTokens(std::span<const int32_t> tokens) const {
  for (const int32_t token : tokens) {
    if (token < 0 || token >= config_.vocab_size) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("token {} is outside the vocabulary; this model knows tokens 0 to {}",
                              token, config_.vocab_size - 1));
    }
  }
}

void Model::Embed(std::span<const int32_t> tokens, int64_t copies, Tensor& output) {
  if (embedding_ == nullptr) {
    backend_.Embed(tokens, weights_.embed, copies, output);
    return;
  }
  const EmbeddingSource::Rows rows = embedding_->Read(tokens);
  backend_.Embed(rows.numbers, rows.table, copies, output);
}

void Model::Begin(ForwardPass& pass) {
  const ScopedFlushDenormals flush;
  pass.halves_done = 0;
  pass.tokens.clear();
  pass.segments.clear();
  for (const SequenceChunk& chunk : pass.chunks) {
    if (chunk.tokens.empty())
      throw Error(ErrorCode::kInvalidArgument, "the prompt has no tokens; give at least one");
    CheckTokens(chunk.tokens);
    const auto rows = static_cast<int64_t>(chunk.tokens.size());
    const int64_t end = chunk.cache->length() + rows;
    if (config_.max_position_embeddings > 0 && end > config_.max_position_embeddings) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("the sequence would reach {} tokens, and this model's limit "
                      "(max_position_embeddings) is {}; shorten the prompt or ask for fewer tokens",
                      end, config_.max_position_embeddings));
    }
    pass.segments.push_back(
        {static_cast<int64_t>(pass.tokens.size()), rows, chunk.cache->length()});
    pass.tokens.insert(pass.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
  }
  MakeRotation(pass.segments, 0, pass.window_rotation);
  MakeRotation(pass.segments, 1, pass.compressed_rotation);
  Embed(pass.tokens, config_.hc_mult, pass.streams);
  if (experts_ == nullptr || !experts_->WantsForecasts()) return;
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (config_.hash_routed(layer))
      ForecastExperts(backend_, Block(layer), pass.tokens, nullptr, workspace_);
  }
}

bool Model::RunHalf(ForwardPass& pass, ForwardSaved* saved) {
  const ScopedFlushDenormals flush;
  const int64_t layer = pass.halves_done / 2;
  caches_.clear();
  for (const SequenceChunk& chunk : pass.chunks) caches_.push_back(&chunk.cache->block(layer));
  const BlockBatch batch{
      pass.tokens, pass.segments, caches_,
      config_.ratio(layer) == 0 ? pass.window_rotation : pass.compressed_rotation};
  ForwardSaved::Block* keep = saved ? &saved->blocks[static_cast<size_t>(layer)] : nullptr;
  BlockSaved* results = keep ? &keep->results : nullptr;
  if (pass.halves_done++ % 2 == 0) {
    if (keep != nullptr && saved->for_backward && results->tape == nullptr)
      results->tape = std::make_unique<BlockTape>();
    ForwardAttentionHalf(backend_, Block(layer), batch, pass.streams, workspace_, results);
    return true;
  }
  // The next block's experts are forecast twice: before this one's are computed, so that the disk
  // never rests between the blocks, and after, when its router is nearly always foretold right.
  const bool forecasts =
      experts_ != nullptr && experts_->WantsForecasts() && layer + 1 < config_.num_hidden_layers;
  const auto forecast = [&] {
    if (forecasts)
      ForecastExperts(backend_, Block(layer + 1), pass.tokens,
                      config_.hash_routed(layer + 1) ? nullptr : &pass.streams, workspace_);
  };
  forecast();
  ForwardMoeHalf(backend_, Block(layer), batch, pass.streams, workspace_, results);
  forecast();
  if (keep != nullptr && !saved->for_backward) keep->hidden.CopyFrom(pass.streams);
  if (pass.halves_done < halves()) return true;
  for (const SequenceChunk& chunk : pass.chunks)
    chunk.cache->Advance(static_cast<int64_t>(chunk.tokens.size()));
  return false;
}

void Model::Forward(std::span<const SequenceChunk> chunks, Tensor& streams, ForwardSaved* saved,
                    const LayerProgress& progress) {
  const ScopedFlushDenormals flush;
  pass_.chunks.assign(chunks.begin(), chunks.end());
  const Lent lent(pass_.streams, streams);
  Begin(pass_);
  if (saved != nullptr) {
    Embed(pass_.tokens, 1, saved->embed);
    saved->blocks.resize(static_cast<size_t>(config_.num_hidden_layers));
  }
  while (RunHalf(pass_, saved)) {
    const int64_t layers = pass_.halves_done / 2;
    if (pass_.halves_done % 2 != 0 || !progress || progress(layers, config_.num_hidden_layers))
      continue;
    throw Error(ErrorCode::kCancelled,
                fmt::format("stopped after {} of {} layers", layers, config_.num_hidden_layers));
  }
}

void Model::HeadLogits(const Tensor& streams, const HyperWeights& hyper, const Vector& norm,
                       Tensor& logits) {
  const ScopedFlushDenormals flush;
  backend_.HyperHead(streams, HyperParametersFor(config_, hyper), head_);
  backend_.RmsNorm(head_, norm, static_cast<float>(config_.rms_norm_eps), head_);
  backend_.Linear(head_, std::vector<Projection>{{&weights_.head, &logits, false}});
}

void Model::Logits(const Tensor& streams, Tensor& logits) {
  HeadLogits(streams, weights_.hc_head, weights_.norm, logits);
}

void Model::DraftLogits(int64_t draft, const Tensor& streams, Tensor& logits) {
  const DraftWeights& weights = weights_.drafts[static_cast<size_t>(draft)];
  HeadLogits(streams, weights.hc_head, weights.norm, logits);
}

void Model::ForwardDraft(int64_t draft, std::span<const int32_t> tokens, const Tensor& streams,
                         SequenceCache& cache, Tensor& output, ForwardSaved* saved) {
  const SequenceChunk chunk{tokens, &cache};
  ForwardDraft(draft, {&chunk, 1}, streams, output, saved);
}

void Model::ForwardDraft(int64_t draft, std::span<const SequenceChunk> chunks,
                         const Tensor& streams, Tensor& output, ForwardSaved* saved) {
  const ScopedFlushDenormals flush;
  const int64_t index = config_.num_hidden_layers + draft;
  tokens_.clear();
  segments_.clear();
  caches_.clear();
  for (const SequenceChunk& chunk : chunks) {
    CheckTokens(chunk.tokens);
    segments_.push_back({static_cast<int64_t>(tokens_.size()),
                         static_cast<int64_t>(chunk.tokens.size()),
                         chunk.cache->draft_length(draft)});
    tokens_.insert(tokens_.end(), chunk.tokens.begin(), chunk.tokens.end());
    caches_.push_back(&chunk.cache->block(index));
  }
  const DraftWeights& weights = weights_.drafts[static_cast<size_t>(draft)];
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const auto rows = static_cast<int64_t>(tokens_.size());
  const int64_t d = config_.hidden_size;
  const bool keep = saved != nullptr && saved->for_backward;
  Embed(tokens_, 1, draft_embed_);
  draft_embed_.Reshape({rows, d});
  if (keep) saved->draft_embed.CopyFrom(draft_embed_), saved->draft_streams.CopyFrom(streams);
  backend_.RmsNorm(draft_embed_, weights.enorm, eps, draft_embed_);
  backend_.Linear(draft_embed_, std::vector<Projection>{{&weights.e_proj, &draft_e_}});
  backend_.RmsNorm(streams, weights.hnorm, eps, draft_h_);
  draft_h_.Reshape({rows * config_.hc_mult, d});
  if (keep) saved->draft_e.CopyFrom(draft_embed_), saved->draft_h.CopyFrom(draft_h_);
  Tensor projected;
  backend_.Linear(draft_h_, std::vector<Projection>{{&weights.h_proj, &projected}});
  projected.Reshape({rows, config_.hc_mult, d});
  backend_.AddToStreams(draft_e_, projected, output);

  Rotation rotation;
  MakeRotation(segments_, config_.ratio(index), rotation);
  const BlockBatch batch{tokens_, segments_, caches_, rotation};
  BlockSaved* results = nullptr;
  if (saved != nullptr) {
    saved->blocks.resize(1);
    results = &saved->blocks[0].results;
    if (keep && results->tape == nullptr) results->tape = std::make_unique<BlockTape>();
  }
  ForwardBlock(backend_, Block(index), batch, output, workspace_, results);
  if (saved != nullptr && !keep) saved->blocks[0].hidden.CopyFrom(output);
  for (const SequenceChunk& chunk : chunks)
    chunk.cache->AdvanceDraft(draft, static_cast<int64_t>(chunk.tokens.size()));
}

}  // namespace toaster
