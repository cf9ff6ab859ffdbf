#include "engine/record_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/flush_denormals.h"
#include "engine/sampler.h"
#include "model/model.h"

namespace toaster {

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Rows of one result, appended chunk by chunk. Rows may grow wider from chunk to chunk (index
// scores); earlier ones are then filled up.
class RowCollector {
 public:
  explicit RowCollector(float fill = 0) : fill_(fill) {}
  void Add(const float* rows, int64_t count, int64_t width) {
    width_ = std::max(width_, width);
    for (int64_t i = 0; i < count; ++i)
      rows_.emplace_back(rows + i * width, rows + (i + 1) * width);
  }
  void Add(const Tensor& tensor) { Add(tensor.data(), tensor.rows(), tensor.width()); }
  RecordedTensor Finish(std::vector<int64_t> inner_shape = {}) const {
    RecordedTensor result;
    result.shape = {static_cast<int64_t>(rows_.size())};
    if (inner_shape.empty()) inner_shape = {width_};
    result.shape.insert(result.shape.end(), inner_shape.begin(), inner_shape.end());
    for (const auto& row : rows_) {
      result.floats.insert(result.floats.end(), row.begin(), row.end());
      result.floats.insert(result.floats.end(), static_cast<size_t>(width_) - row.size(), fill_);
    }
    return result;
  }

 private:
  float fill_;
  int64_t width_ = 0;
  std::vector<std::vector<float>> rows_;
};

// Everything a trace keeps of one block.
class BlockCollector {
 public:
  void Add(const ForwardSaved::Block& block, int64_t ratio) {
    attn_in_.Add(block.results.attn_in);
    attn_out_.Add(block.results.attn_out);
    ffn_in_.Add(block.results.ffn_in);
    ffn_out_.Add(block.results.ffn_out);
    hidden_.Add(block.hidden);
    streams_ = block.hidden.extent(1);
    const Routing& routing = block.results.routing;
    experts_per_token_ = routing.experts_per_token;
    experts_.insert(experts_.end(), routing.experts.begin(), routing.experts.end());
    weights_.Add(routing.weights.data(), block.results.attn_in.rows(), experts_per_token_);
    scores_.Add(routing.scores);
    indexed_ = ratio == 4;
    if (!indexed_) return;
    index_scores_.Add(block.results.index_scores);
    blocks_ = std::max(blocks_, block.results.index_scores.width());
    const auto& chosen = block.results.selection.entries;
    selected_.insert(selected_.end(), chosen.begin(), chosen.end());
  }

  void Finish(const std::string& prefix, int64_t topk, RecordedTensors& results) const {
    results[prefix + "attn_in"] = attn_in_.Finish();
    results[prefix + "attn_out"] = attn_out_.Finish();
    results[prefix + "ffn_in"] = ffn_in_.Finish();
    results[prefix + "ffn_out"] = ffn_out_.Finish();
    RecordedTensor hidden = hidden_.Finish();
    hidden.shape = {hidden.shape[0], streams_, hidden.shape[1] / streams_};
    results[prefix + "hidden"] = std::move(hidden);
    RecordedTensor experts;
    experts.is_integer = true;
    experts.integers = experts_;
    experts.shape = {static_cast<int64_t>(experts_.size()) / experts_per_token_,
                     experts_per_token_};
    results[prefix + "router_experts"] = std::move(experts);
    results[prefix + "router_weights"] = weights_.Finish();
    results[prefix + "router_scores"] = scores_.Finish();
    if (!indexed_) return;
    results[prefix + "index_scores"] = index_scores_.Finish();
    RecordedTensor selection;
    selection.is_integer = true;
    const int64_t width = std::min(topk, blocks_);
    selection.shape = {static_cast<int64_t>(selected_.size()), width};
    for (const auto& row : selected_) {
      selection.integers.insert(selection.integers.end(), row.begin(), row.end());
      selection.integers.insert(selection.integers.end(), static_cast<size_t>(width) - row.size(),
                                -1);
    }
    results[prefix + "index_topk"] = std::move(selection);
  }

 private:
  RowCollector attn_in_, attn_out_, ffn_in_, ffn_out_, hidden_, weights_, scores_,
      index_scores_{kNone};
  std::vector<int32_t> experts_;
  std::vector<std::vector<int32_t>> selected_;
  int64_t experts_per_token_ = 1, streams_ = 1, blocks_ = 0;
  bool indexed_ = false;
};

class Recorder {
 public:
  Recorder(const Config& config, const ModelWeights& weights, const BackendOptions& options,
           const RunList& runs, const SafetensorsFile& inputs, int64_t chunk)
      : config_(config),
        backend_(CreateBackend(options)),
        model_(config, weights, *backend_),
        runs_(runs),
        inputs_(inputs),
        chunk_(chunk),
        official_(options.numerics == Numerics::kOfficial),
        mode_(official_ ? "official." : "fp32.") {
    const StoredTensor* tokens = inputs.Find("tokens");
    if (tokens == nullptr || tokens->type != StoredType::kI32) {
      throw Error(
          ErrorCode::kCorruptFile,
          fmt::format("{}: has no I32 tensor \"tokens\"; give the file recorded with the run list",
                      inputs.origin()));
    }
    tokens_.resize(static_cast<size_t>(tokens->bytes / 4));
    std::memcpy(tokens_.data(), tokens->data, tokens_.size() * 4);
    int64_t longest = std::max({runs.trace, runs.greedy.first, runs.mtp.first + runs.mtp.second});
    for (const int64_t n : runs.prefill) longest = std::max(longest, n);
    for (const auto& [n, steps] : runs.decode) longest = std::max(longest, n + steps);
    if (longest > static_cast<int64_t>(tokens_.size())) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("{}: a run needs {} tokens and \"tokens\" has {}", inputs.origin(),
                              longest, tokens_.size()));
    }
  }

  RecordedTensors Run() {
    RecordPrefill();
    RecordDecode();
    if (runs_.trace > 0) RecordTrace();
    if (runs_.greedy.second > 0) RecordGreedy();
    if (runs_.mtp.first > 1 && config_.num_nextn_predict_layers > 0) RecordDraft();
    if (official_ && inputs_.Find("official.trace.embed") != nullptr) RecordSingleSteps();
    return std::move(results_);
  }

 private:
  std::span<const int32_t> Tokens(int64_t first, int64_t count) const {
    return std::span(tokens_).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  }

  // Feeds tokens [0, n) and hands each chunk's streams (and kept results) to `use`.
  template <typename Use>
  void Prefill(int64_t n, SequenceCache& cache, bool keep, Use use) {
    const int64_t step = chunk_ > 0 ? chunk_ : n;
    for (int64_t begin = 0; begin < n; begin += step) {
      Tensor streams;
      ForwardSaved saved;
      const SequenceChunk chunk{Tokens(begin, std::min(step, n - begin)), &cache};
      model_.Forward({&chunk, 1}, streams, keep ? &saved : nullptr);
      use(streams, saved);
    }
  }

  static void LastRow(const Tensor& streams, Tensor& last) {
    last.Reshape({1, streams.extent(1), streams.extent(2)});
    std::copy_n(streams.Row(streams.rows() - 1), streams.width(), last.data());
  }

  // Prefills n tokens and leaves the last token's streams.
  void PrefillLast(int64_t n, SequenceCache& cache, Tensor& last) {
    Prefill(n, cache, false,
            [&](const Tensor& streams, const ForwardSaved&) { LastRow(streams, last); });
  }

  void Step(int32_t token, SequenceCache& cache, Tensor& streams) {
    const SequenceChunk chunk{{&token, 1}, &cache};
    model_.Forward({&chunk, 1}, streams);
  }

  void RecordPrefill() {
    RowCollector rows;
    Tensor last, logits;
    for (const int64_t n : runs_.prefill) {
      const auto cache = model_.NewCache();
      PrefillLast(n, *cache, last);
      model_.Logits(last, logits);
      rows.Add(logits);
    }
    results_[mode_ + "prefill.logits"] = rows.Finish();
  }

  void RecordDecode() {
    for (const auto& [n, steps] : runs_.decode) {
      RowCollector rows;
      const auto cache = model_.NewCache();
      Tensor streams, logits;
      PrefillLast(n, *cache, streams);
      for (int64_t p = n; p < n + steps; ++p) {
        Step(tokens_[static_cast<size_t>(p)], *cache, streams);
        model_.Logits(streams, logits);
        rows.Add(logits);
      }
      results_[fmt::format("{}decode.{}.logits", mode_, n)] = rows.Finish();
    }
  }

  void RecordTrace() {
    RowCollector logit_rows, embed;
    std::vector<BlockCollector> blocks(static_cast<size_t>(config_.num_hidden_layers));
    const auto cache = model_.NewCache();
    Tensor logits;
    Prefill(runs_.trace, *cache, true, [&](const Tensor& streams, const ForwardSaved& saved) {
      model_.Logits(streams, logits);
      logit_rows.Add(logits);
      embed.Add(saved.embed);
      for (size_t i = 0; i < blocks.size(); ++i)
        blocks[i].Add(saved.blocks[i], config_.compress_ratios[i]);
    });
    results_[mode_ + "trace.logits"] = logit_rows.Finish();
    results_[mode_ + "trace.embed"] = embed.Finish();
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i].Finish(fmt::format("{}trace.layer.{}.", mode_, i), config_.index_topk, results_);
    }
  }

  void RecordGreedy() {
    const auto cache = model_.NewCache();
    Tensor streams, logits;
    PrefillLast(runs_.greedy.first, *cache, streams);
    RowCollector rows;
    RecordedTensor tokens;
    tokens.is_integer = true;
    for (int64_t i = 0; i < runs_.greedy.second; ++i) {
      model_.Logits(streams, logits);
      rows.Add(logits);
      tokens.integers.push_back(ArgMax(logits.values()));
      if (i + 1 < runs_.greedy.second) Step(tokens.integers.back(), *cache, streams);
    }
    tokens.shape = {runs_.greedy.second};
    results_[mode_ + "greedy.tokens"] = std::move(tokens);
    results_[mode_ + "greedy.logits"] = rows.Finish();
  }

  // The draft block over a prompt: row i joins the main streams at i with token i + 1; then token
  // by token.
  void RecordDraft() {
    const int64_t n = runs_.mtp.first, steps = runs_.mtp.second;
    const int64_t index = config_.num_hidden_layers;
    const auto cache = model_.NewCache();
    RowCollector logit_rows, step_rows;
    BlockCollector block;
    Tensor last, output, logits;
    int64_t done = 0;
    Prefill(n, *cache, false, [&](const Tensor& streams, const ForwardSaved&) {
      LastRow(streams, last);
      const int64_t rows = std::min(streams.rows(), n - 1 - done);
      if (rows <= 0) return;
      Tensor known({rows, streams.extent(1), streams.extent(2)});
      std::copy_n(streams.data(), known.size(), known.data());
      ForwardSaved saved;
      model_.ForwardDraft(0, Tokens(done + 1, rows), known, *cache, output, &saved);
      model_.DraftLogits(0, output, logits);
      logit_rows.Add(logits);
      block.Add(saved.blocks[0], config_.ratio(index));
      done += rows;
    });
    results_[mode_ + "mtp.logits"] = logit_rows.Finish();
    block.Finish(mode_ + "mtp.", config_.index_topk, results_);
    for (int64_t p = n; p < n + steps; ++p) {
      model_.ForwardDraft(0, Tokens(p, 1), last, *cache, output);
      model_.DraftLogits(0, output, logits);
      step_rows.Add(logits);
      Step(tokens_[static_cast<size_t>(p)], *cache, last);
    }
    results_[mode_ + "mtp.decode_logits"] = step_rows.Finish();
  }

  Tensor Input(const std::string& name) const {
    const StoredTensor* stored = inputs_.Find(name);
    if (stored == nullptr || stored->type != StoredType::kF32) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("{}: has no F32 tensor \"{}\"", inputs_.origin(), name));
    }
    Tensor tensor({stored->shape[0], stored->bytes / 4 / std::max<int64_t>(stored->shape[0], 1)});
    std::memcpy(tensor.data(), stored->data, static_cast<size_t>(stored->bytes));
    return tensor;
  }

  // Single steps from recorded inputs, with empty caches.
  void RecordSingleSteps() {
    const ScopedFlushDenormals flush;
    const int64_t rows = runs_.trace, d = config_.hidden_size, n = config_.hc_mult;
    const Segment segment{0, rows, 0};
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const BlockContext block = model_.Block(layer);
      Rotation rotation;
      model_.MakeRotation({&segment, 1}, config_.ratio(layer), rotation);
      const auto cache = model_.NewCache();
      const auto step_cache = model_.NewCache();
      BlockCache *block_cache = &cache->block(layer), *step_block_cache = &step_cache->block(layer);
      BlockWorkspace workspace;
      const std::string trace = fmt::format("official.trace.layer.{}.", layer);
      const std::string local = fmt::format("official.local.layer.{}.", layer);
      const auto give = [&](const char* what, const Tensor& tensor) {
        RowCollector collector;
        collector.Add(tensor);
        results_[local + what] = collector.Finish();
      };

      Tensor streams;
      if (layer == 0) {
        const Tensor embed = Input("official.trace.embed");
        streams.Reshape({rows, n, d});
        for (int64_t i = 0; i < rows * n; ++i)
          std::copy_n(embed.Row(i / n), d, streams.data() + i * d);
      } else {
        streams = Input(fmt::format("official.trace.layer.{}.hidden", layer - 1));
        streams.Reshape({rows, n, d});
      }
      Tensor input, post, comb, output;
      backend_->HyperPre(streams, HyperParametersFor(config_, block.weights.hc_attn), input, post,
                         comb);
      backend_->RmsNorm(input, block.weights.attn_norm, static_cast<float>(config_.rms_norm_eps),
                        input);
      give("attn_in", input);

      const BlockBatch batch{Tokens(0, rows), {&segment, 1}, {&block_cache, 1}, rotation};
      ForwardAttention(*backend_, block, batch, Input(trace + "attn_in"), workspace, output,
                       nullptr);
      give("attn_out", output);
      ForwardMoe(*backend_, block, Tokens(0, rows), Input(trace + "ffn_in"), workspace, output,
                 nullptr);
      give("ffn_out", output);

      const BlockBatch whole{Tokens(0, rows), {&segment, 1}, {&step_block_cache, 1}, rotation};
      ForwardBlock(*backend_, block, whole, streams, workspace, nullptr);
      give("hidden", streams);
      results_[local + "hidden"].shape = {rows, n, d};
    }
  }

  const Config& config_;
  std::unique_ptr<Backend> backend_;
  Model model_;
  const RunList& runs_;
  const SafetensorsFile& inputs_;
  int64_t chunk_;
  bool official_;
  std::string mode_;
  std::vector<int32_t> tokens_;
  RecordedTensors results_;
};

}  // namespace

RunList RunList::Parse(std::string_view json, const std::string& origin) {
  const auto fail = [&](const char* what) -> Error {
    return Error(ErrorCode::kCorruptFile,
                 fmt::format("{}: {}; give a run list as docs/formats/recorded_runs.md describes",
                             origin, what));
  };
  const nlohmann::json file = nlohmann::json::parse(json, nullptr, false);
  if (!file.is_object() || !file.contains("runs") || !file["runs"].is_object())
    throw fail("has no member \"runs\"");
  const nlohmann::json& runs = file["runs"];
  RunList list;
  try {
    const auto pair = [&](const nlohmann::json& value) {
      return std::pair{value.at(0).get<int64_t>(), value.at(1).get<int64_t>()};
    };
    if (runs.contains("prefill")) list.prefill = runs["prefill"].get<std::vector<int64_t>>();
    if (runs.contains("decode")) {
      for (const auto& value : runs["decode"]) list.decode.push_back(pair(value));
    }
    if (runs.contains("trace")) list.trace = runs["trace"].get<int64_t>();
    if (runs.contains("greedy")) list.greedy = pair(runs["greedy"]);
    if (runs.contains("mtp")) list.mtp = pair(runs["mtp"]);
  } catch (const nlohmann::json::exception&) {
    throw fail("a member of \"runs\" is not a number or pair of numbers");
  }
  const auto natural = [&](int64_t n) {
    if (n < 0) throw fail("a count is negative");
  };
  for (const int64_t n : list.prefill) {
    if (n < 1) throw fail("a prefill length is less than 1");
  }
  for (const auto& [n, steps] : list.decode) {
    if (n < 1) throw fail("a decode prompt is empty");
    natural(steps);
  }
  for (const int64_t n :
       {list.trace, list.greedy.first, list.greedy.second, list.mtp.first, list.mtp.second})
    natural(n);
  if (list.greedy.second > 0 && list.greedy.first < 1) throw fail("the greedy prompt is empty");
  return list;
}

RecordedTensors RecordRuns(const Config& config, const ModelWeights& weights,
                           const BackendOptions& options, const RunList& runs,
                           const SafetensorsFile& inputs, int64_t chunk) {
  return Recorder(config, weights, options, runs, inputs, chunk).Run();
}

}  // namespace toaster
