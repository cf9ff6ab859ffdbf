// Optimiser steps and whole training runs against recordings.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/flush_denormals.h"
#include "base/random.h"
#include "train/optimizer.h"
#include "training_model.h"

namespace toaster {
namespace {

class OptimizerTest : public ::testing::Test {
 protected:
  OptimizerTest()
      : recording_("optim"),
        backend_(CreateBackward({"reference", "", 0, Numerics::kFloat32})),
        rate_(recording_.index()["lr"]) {}

  void Expect(const std::string& name, std::span<const float> got) {
    std::string line;
    EXPECT_EQ(recording_.Judge(name, got, false, &line), Verdict::kTight) << line;
  }
  // Gradient `step` of [steps, rows, columns].
  static std::span<const float> Part(const Tensor& gradients, int64_t step) {
    return gradients.values().subspan(static_cast<size_t>(step * gradients.width()),
                                      static_cast<size_t>(gradients.width()));
  }
  static std::span<float> Span(Tensor& tensor) {
    return {tensor.data(), static_cast<size_t>(tensor.size())};
  }

  ScopedFlushDenormals flush_;
  TrainingRecording recording_;
  std::unique_ptr<BackwardBackend> backend_;
  float rate_;
};

TEST_F(OptimizerTest, Muon) {
  for (const std::string shape : {"8x8", "16x64", "48x48", "64x16"}) {
    const std::string p = "muon_" + shape + ".";
    Tensor weights = recording_.Floats(p + "w0"), momentum({weights.rows(), weights.width()}),
           update({weights.rows(), weights.width()});
    momentum.Fill(0);
    const Tensor gradients = recording_.Floats(p + "grads");
    for (int64_t step = 0; step < gradients.rows(); ++step) {
      MuonStep(*backend_, weights.rows(), weights.width(), Span(weights), Part(gradients, step),
               Span(momentum), Span(update), rate_, {});
      const std::string number = std::to_string(step + 1);
      Expect(p + "update" + number, update.values());
      Expect(p + "momentum" + number, momentum.values());
      Expect(p + "w" + number, weights.values());
    }
  }
}

// Rank 3 of 24: the null space amplifies rounding, so only three directions are held exactly.
TEST_F(OptimizerTest, NewtonSchulzOfSingularMatrices) {
  Tensor x = recording_.Floats("newton_schulz_rank3.in");
  const Tensor expected = recording_.Floats("newton_schulz_rank3.out");
  Orthogonalise(*backend_, x.rows(), x.width(), x.data());
  double error = 0, size = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    error += std::pow(x.data()[i] - expected.data()[i], 2);
    size += std::pow(expected.data()[i], 2);
  }
  EXPECT_LT(std::sqrt(error / size), 0.01);
  Tensor zero = recording_.Floats("newton_schulz_zero.in");
  Orthogonalise(*backend_, zero.rows(), zero.width(), zero.data());
  for (const float v : zero.values()) EXPECT_EQ(v, 0);
}

// Wide, tall and odd shapes. Floats differ by the order of sums, which ten steps that stretch small
// singular values up to 3.4 times amplify. BF16 operands are off by up to 2^-9 in each of three
// products, and the settling steps leave what the last ones add. A single thread, or all of them
// together, give the same bits.
TEST(OrthogonaliseTest, FastBackendComesNearTheReference) {
  const ScopedFlushDenormals flush;
  const auto reference = CreateBackward({"reference", "", 0, Numerics::kFloat32});
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{96, 96}, {40, 136}, {75, 33}}) {
    Tensor start({rows, columns}), expected;
    for (int64_t i = 0; i < start.size(); ++i) {
      const auto bits = Philox(5, static_cast<uint64_t>(i), 0);
      start.data()[i] = static_cast<float>(UniformDouble(bits[0], bits[1]) - 0.5);
    }
    expected.CopyFrom(start);
    Orthogonalise(*reference, rows, columns, expected.data());
    for (const bool bf16 : {false, true}) {
      std::vector<Tensor> results;
      for (const int threads : {1, 3}) {
        const auto numerics = bf16 ? Numerics::kOfficial : Numerics::kFloat32;
        const auto fast = CreateBackward({"cpu", "", threads, numerics});
        results.emplace_back().CopyFrom(start);
        Orthogonalise(*fast, rows, columns, results.back().data());
      }
      const Tensor& got = results[0];
      EXPECT_TRUE(std::ranges::equal(got.values(), results[1].values()));
      double error = 0, size = 0;
      for (int64_t i = 0; i < got.size(); ++i) {
        error += std::pow(got.data()[i] - expected.data()[i], 2);
        size += std::pow(expected.data()[i], 2);
      }
      EXPECT_LT(std::sqrt(error / size), bf16 ? 0.05 : 1e-3) << rows << "x" << columns;
    }
  }
}

TEST_F(OptimizerTest, AdamW) {
  Tensor weights = recording_.Floats("adamw.w0"), mean({weights.rows(), weights.width()}),
         square({weights.rows(), weights.width()});
  mean.Fill(0);
  square.Fill(0);
  const Tensor gradients = recording_.Floats("adamw.grads");
  for (int64_t step = 0; step < gradients.rows(); ++step) {
    AdamWStep(Span(weights), Part(gradients, step), Span(mean), Span(square), step + 1, rate_, {});
    const std::string number = std::to_string(step + 1);
    Expect("adamw.m" + number, mean.values());
    Expect("adamw.v" + number, square.values());
    Expect("adamw.w" + number, weights.values());
  }
}

TEST_F(OptimizerTest, RouterBiases) {
  Tensor biases = recording_.Floats("bias.b0");
  const std::vector<int32_t> loads = recording_.Integers("bias.loads");
  const auto count = static_cast<size_t>(biases.size());
  for (size_t step = 0; step * count < loads.size(); ++step) {
    const std::vector<int64_t> load(loads.begin() + static_cast<int64_t>(step * count),
                                    loads.begin() + static_cast<int64_t>((step + 1) * count));
    BiasStep(Span(biases), load, 0.001f);
    Expect("bias.b" + std::to_string(step + 1), biases.values());
  }
}

TEST(ScheduleTest, WarmsUpStaysAndDecays) {
  const Schedule schedule{1.0, 0.1, 10, 100, 20};
  EXPECT_DOUBLE_EQ(schedule.Rate(0), 0.1);
  EXPECT_DOUBLE_EQ(schedule.Rate(9), 1.0);
  EXPECT_DOUBLE_EQ(schedule.Rate(79), 1.0);
  EXPECT_DOUBLE_EQ(schedule.Rate(80), 1.0);
  EXPECT_DOUBLE_EQ(schedule.Rate(90), 0.55);
  EXPECT_LT(schedule.Rate(99), 0.11);
  EXPECT_GT(schedule.Rate(99), 0.1);
}

// Losses before each of the first `steps` steps, and what is recorded of the end if all are run.
void RunCurve(const std::string& mode, int64_t steps) {
  const ScopedFlushDenormals flush;
  const TrainingRecording recording("curve1");
  const bool qat = mode == "qat";
  TrainingModel trained(recording, qat, false);
  TrainingPass pass(trained.model, trained.weights.weights(), *trained.backward);
  ParameterArrays gradients(trained.weights.config(), trained.weights.weights());
  Optimizer optimizer(trained.weights, *trained.backward);
  const std::vector<int32_t> tokens = recording.Integers("tokens");
  const Tensor rates = recording.Floats(mode + ".lr");
  const Tensor expected = recording.Floats(mode + ".losses"),
               noise = recording.Floats(mode + ".losses_noise"),
               norms = recording.Floats(mode + ".gradient_norm");
  const std::vector<int64_t> lengths = recording.index()["lengths"];
  const bool all = steps == rates.size();
  size_t at = 0;
  std::vector<float> gradient_norms;
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<Document> documents;
    for (const int64_t length : lengths) {
      documents.push_back(
          {std::span<const int32_t>(tokens).subspan(at, static_cast<size_t>(length))});
      at += static_cast<size_t>(length);
    }
    gradients.Clear();
    const LossValues losses = pass.Run(documents, {}, gradients);
    const double got[] = {losses.ce, losses.mtp, losses.balance, losses.index, losses.total};
    // Ten times the deviation that other orders of summation (and, with roundings, forced flips)
    // showed, and the last digits of a loss of about 8.
    for (int64_t i = 0; i < 5; ++i) {
      EXPECT_NEAR(got[i], expected.Row(step)[i], 10 * noise.Row(step)[i] + 5e-6)
          << mode << " step " << step << " loss " << i;
    }
    const double norm = GradientNorm(gradients);
    gradient_norms.push_back(static_cast<float>(norm));
    EXPECT_NEAR(norm / norms.data()[step], 1, qat ? 0.5 : 1e-5);
    optimizer.Step(trained.weights, gradients, losses.loads, rates.data()[step]);
    trained.weights.Store();
  }
  if (!all) return;
  std::string line;
  EXPECT_NE(recording.Judge(mode + ".gradient_norm", gradient_norms, qat, &line),
            Verdict::kMismatch)
      << line;
  if (qat) return;
  std::vector<float> final_norms;
  for (const std::string name : recording.index()["parameters"]) {
    const ParameterArrays::Part* part = trained.weights.masters().Find(name);
    ASSERT_NE(part, nullptr) << name;
    double squares = 0;
    for (const float w : trained.weights.masters().Values(*part))
      squares += static_cast<double>(w) * w;
    final_norms.push_back(static_cast<float>(std::sqrt(squares)));
    if (!recording.Has(mode + ".final." + name)) continue;
    EXPECT_EQ(recording.Judge(mode + ".final." + name, trained.weights.masters().Values(*part),
                              false, &line),
              Verdict::kTight)
        << line;
  }
  EXPECT_EQ(recording.Judge(mode + ".final_norms", final_norms, false, &line), Verdict::kTight)
      << line;
  for (int64_t layer = 1; layer < trained.weights.config().num_hidden_layers; ++layer) {
    const std::string name = mode + ".final.layers." + std::to_string(layer) + ".ffn.gate.bias";
    EXPECT_EQ(recording.Judge(name, trained.weights.RouterBias(layer), false, &line),
              Verdict::kTight)
        << line;
  }
}

TEST(TrainingCurveTest, FirstSteps) { RunCurve("fp32", 2); }
TEST(TrainingCurveLongTest, Float32) { RunCurve("fp32", 20); }
TEST(TrainingCurveLongTest, Quantised) { RunCurve("qat", 10); }

}  // namespace
}  // namespace toaster
