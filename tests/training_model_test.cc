// Gradients of whole models and single blocks against recordings: all kinds of layers, packed
// documents, dense and sparse, with and without the roundings of quantisation-aware training.

#include "training_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "backend/registry.h"
#include "base/flush_denormals.h"
#include "checkpoint/load_weights.h"
#include "golden_set.h"
#include "train/trained_weights.h"
#include "train/training_pass.h"
#include "training_recording.h"

namespace toaster {
namespace {

struct Case {
  std::string set;
  std::string run;  // "fp32.sparse", ...
  BackendOptions options = {"reference", "", 0, Numerics::kFloat32};
};

std::string CaseName(const Case& test) {
  std::string name = test.set + "_" + test.run + "_" + test.options.backend + test.options.kernels;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

class TrainingModelTest : public ::testing::TestWithParam<Case> {};
class TrainingBlockTest : public ::testing::TestWithParam<Case> {};

// What is recorded of a large matrix: four rows, and its products with vectors of signs.
class Sketch {
 public:
  Sketch(const TrainingRecording& recording, const TensorSpec& spec, std::span<const float> grad)
      : recording_(recording), rows_(spec.rows), columns_(spec.columns), grad_(grad) {}

  std::vector<float> Rows() const {
    std::vector<float> out;
    for (int64_t i = 0; i < 4; ++i) {
      const auto row = grad_.subspan(static_cast<size_t>(i * rows_ / 4 * columns_),
                                     static_cast<size_t>(columns_));
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }
  std::vector<float> Product(bool right) const {
    const Tensor signs = recording_.Floats("signs." + std::to_string(right ? columns_ : rows_));
    std::vector<double> sums(static_cast<size_t>(right ? rows_ : columns_), 0.0);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) {
        sums[static_cast<size_t>(right ? r : c)] +=
            static_cast<double>(signs.data()[right ? c : r]) *
            grad_[static_cast<size_t>(r * columns_ + c)];
      }
    }
    return {sums.begin(), sums.end()};
  }

 private:
  const TrainingRecording& recording_;
  int64_t rows_, columns_;
  std::span<const float> grad_;
};

// Counts verdicts; a mismatch is a failure, a flipped result is one where nothing may flip.
class Judge {
 public:
  Judge(const TrainingRecording& recording, std::string run, bool may_flip)
      : recording_(recording), run_(std::move(run)), may_flip_(may_flip) {}

  void Hold(const std::string& name, std::span<const float> values, bool local = false) {
    std::string line;
    const Verdict verdict = recording_.Judge(run_ + "." + name, values, may_flip_, &line,
                                             local ? run_ + ".local." + name : "");
    ++counts[verdict];
    flipped_outside_draft += verdict == Verdict::kFlipped && name.rfind("grad.mtp.", 0) != 0;
    if (verdict == Verdict::kMismatch) ADD_FAILURE() << line;
  }
  void HoldGradient(const TensorSpec& spec, std::span<const float> grad, bool local = false) {
    const std::string name = "grad." + spec.name;
    if (spec.columns == 0 || spec.rows * spec.columns <= 4096) {
      Hold(name, grad, local);
      return;
    }
    const Sketch sketch(recording_, spec, grad);
    Hold(name + ".rows", sketch.Rows(), local);
    Hold(name + ".right", sketch.Product(true), local);
    Hold(name + ".left", sketch.Product(false), local);
  }

  std::map<Verdict, int> counts;
  int flipped_outside_draft = 0;

 private:
  const TrainingRecording& recording_;
  std::string run_;
  bool may_flip_;
};

TEST_P(TrainingModelTest, GradientsMatchTheRecording) {
  const auto& [set, run, options] = GetParam();
  const ScopedFlushDenormals flush;
  const TrainingRecording recording(set);
  const bool qat = run.rfind("qat", 0) == 0;
  TrainingModel trained(recording, qat, run == "fp32.dense", options);
  TrainingPass pass(trained.model, trained.weights.weights(), *trained.backward);
  ParameterArrays gradients(trained.weights.config(), trained.weights.weights());
  std::vector<Tensor> grad_hidden;
  const LossValues losses = pass.Run(trained.documents, {}, gradients, &grad_hidden);

  Judge judge(recording, run, qat);
  judge.Hold("losses", std::vector<float>{
                           static_cast<float>(losses.ce), static_cast<float>(losses.mtp),
                           static_cast<float>(losses.balance), static_cast<float>(losses.index),
                           static_cast<float>(losses.total)});
  for (const ParameterArrays::Part& part : gradients.parts())
    judge.HoldGradient(part.spec, gradients.Values(part));
  const int64_t layers = trained.weights.config().num_hidden_layers;
  for (int64_t layer = 0; layer <= layers; ++layer) {
    const std::string name = "grad.hidden." + std::to_string(layer);
    if (recording.Has(run + "." + name))
      judge.Hold(name, grad_hidden[static_cast<size_t>(layer)].values());
  }
  EXPECT_GT(judge.counts[Verdict::kTight], 100);
  // The recordings' tokens were chosen so that hardly a rounding flips: one input of an expert in
  // the draft block of t1, which moves that block's gradients by up to a percent.
  EXPECT_LE(judge.flipped_outside_draft, 2);
  EXPECT_LE(judge.counts[Verdict::kFlipped], set == "t1_all_kinds" && qat ? 80 : 0);
}

TEST_P(TrainingBlockTest, MatchesTheRecording) {
  const auto& [set, run, options] = GetParam();
  const ScopedFlushDenormals flush;
  const TrainingRecording recording(set);
  const bool qat = run.rfind("qat", 0) == 0;
  TrainingModel trained(recording, qat, false, options);
  const Config& config = trained.weights.config();
  Judge judge(recording, run, qat);
  int blocks = 0;
  for (int64_t index = 0; index <= config.num_hidden_layers; ++index) {
    const bool draft = index == config.num_hidden_layers;
    const std::string before = draft ? "mtp.in" : "hidden." + std::to_string(index);
    const std::string after = draft ? "mtp.out" : "hidden." + std::to_string(index + 1);
    if (!recording.Has(run + "." + before) || !recording.Has(run + "." + after)) continue;
    ++blocks;
    std::vector<int32_t> tokens;
    std::vector<Segment> segments;
    std::vector<std::unique_ptr<SequenceCache>> owned;
    std::vector<BlockCache*> caches;
    for (const Document& document : trained.documents) {
      const auto part = document.tokens.subspan(draft ? 1 : 0);
      if (part.empty()) continue;
      segments.push_back(
          {static_cast<int64_t>(tokens.size()), static_cast<int64_t>(part.size()), 0});
      tokens.insert(tokens.end(), part.begin(), part.end());
      owned.push_back(trained.model.NewCache());
      caches.push_back(&owned.back()->block(index));
    }
    Rotation rotation;
    trained.model.MakeRotation(segments, config.ratio(index), rotation);
    const BlockBatch batch{tokens, segments, caches, rotation};
    Tensor streams = recording.Floats(run + "." + before),
           grad = recording.Floats(run + ".grad." + after);
    BlockWorkspace workspace;
    BlockSaved saved;
    saved.tape = std::make_unique<BlockTape>();
    ForwardBlock(*trained.backend, trained.model.Block(index), batch, streams, workspace, &saved);
    judge.Hold(after, streams.values(), true);
    ParameterArrays gradients(config, trained.weights.weights());
    BlockLosses losses;
    losses.balance.weight = config.hash_routed(index) ? 0 : LossWeights().balance;
    losses.index.weight = LossWeights().index;
    BackwardBlock(*trained.backward, trained.model.Block(index), batch, saved, losses, grad,
                  gradients);
    judge.Hold("grad." + before, grad.values(), true);
    for (const ParameterArrays::Part& part : gradients.parts()) {
      const std::string& name = part.spec.name;
      const std::string prefix =
          draft ? std::string("mtp.0.") : "layers." + std::to_string(index) + ".";
      bool inside = false;
      for (const char* group : {"attn", "ffn", "hc_attn", "hc_ffn"})
        inside = inside || name.rfind(prefix + group, 0) == 0;
      if (inside) judge.HoldGradient(part.spec, gradients.Values(part), true);
    }
  }
  EXPECT_GT(blocks, 0) << "no block boundaries are recorded";
  EXPECT_GT(judge.counts[Verdict::kTight], 20);
  EXPECT_LE(judge.counts[Verdict::kFlipped], 3);
}

INSTANTIATE_TEST_SUITE_P(
    Sets, TrainingModelTest,
    ::testing::Values(Case{"t1_all_kinds", "fp32.sparse"}, Case{"t1_all_kinds", "qat.sparse"},
                      Case{"t2_packed", "fp32.sparse"}, Case{"t2_packed", "fp32.dense"},
                      Case{"t2_packed", "qat.sparse"}, Case{"t3_short", "fp32.sparse"},
                      Case{"t3_short", "qat.sparse"}),
    [](const auto& test) { return CaseName(test.param); });
// The roundings of quantisation-aware training without BF16 are the reference backend's alone.
std::vector<Case> CpuCases() {
  std::vector<Case> cases;
  for (const std::string& table : RunnableKernels()) {
    const BackendOptions options{"cpu", table, 2, Numerics::kFloat32};
    cases.push_back({"t1_all_kinds", "fp32.sparse", options});
    cases.push_back({"t2_packed", "fp32.dense", options});
    cases.push_back({"t3_short", "fp32.sparse", options});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Cpu, TrainingModelTest, ::testing::ValuesIn(CpuCases()),
                         [](const auto& test) { return CaseName(test.param); });
INSTANTIATE_TEST_SUITE_P(Sets, TrainingBlockTest,
                         ::testing::Values(Case{"t1_all_kinds", "qat.sparse"},
                                           Case{"t3_short", "qat.sparse"}),
                         [](const auto& test) { return CaseName(test.param); });

}  // namespace
}  // namespace toaster
