// Gradients of the fast backward pass in official numerics: the same bits for any number of threads
// and any kernel table, and those of the reference up to the rounding of operands to BF16.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "backend/registry.h"
#include "base/flush_denormals.h"
#include "base/random.h"
#include "checkpoint/load_weights.h"
#include "golden_set.h"
#include "train/optimizer.h"
#include "train/trained_weights.h"
#include "train/training_pass.h"

namespace toaster {
namespace {

// Masters after one step, and the gradients of the second batch.
struct Outcome {
  std::vector<float> masters, gradients;
  std::vector<ParameterArrays::Part> parts;
};

Outcome Train(const std::string& set, const BackendOptions& backward_options) {
  const ScopedFlushDenormals flush;
  const LoadedModel loaded = LoadModel(GoldenSet::Folder(set) / "checkpoint");
  TrainedWeights weights(loaded.config, WeightStorage::kReleased);
  weights.CopyFrom(loaded.weights);
  weights.Store();
  // The forward pass gives the same bits everywhere: other tests show it.
  const auto backend = CreateBackend({"cpu", "", 2, Numerics::kOfficial});
  const auto backward = CreateBackward(backward_options);
  Model model(weights.config(), weights.weights(), *backend);
  TrainingPass pass(model, weights.weights(), *backward);
  ParameterArrays gradients(weights.config(), weights.weights());
  Optimizer optimizer(weights, *backward);
  std::vector<int32_t> tokens;
  for (uint64_t i = 0; i < 170; ++i) {
    tokens.push_back(
        static_cast<int32_t>(Philox(9, i, 0)[0] % static_cast<uint64_t>(loaded.config.vocab_size)));
  }
  const std::span<const int32_t> all = tokens;
  const std::vector<Document> documents = {
      {all.first(97)}, {all.subspan(97, 2)}, {all.subspan(99)}};
  const LossValues losses = pass.Run(documents, {}, gradients);
  const std::vector<float> first(gradients.values().begin(), gradients.values().end());
  optimizer.Step(weights, gradients, losses.loads, 0.001f);
  return {{weights.masters().values().begin(), weights.masters().values().end()},
          first,
          gradients.parts()};
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

TEST(TrainingInvarianceTest, ThreadsAndKernelsChangeNoBit) {
  const std::string set = "g2_all_kinds";
  const Outcome expected = Train(set, {"cpu", "", 2, Numerics::kOfficial});
  std::vector<BackendOptions> ways = {{"cpu", "", 1, Numerics::kOfficial},
                                      {"cpu", "", 3, Numerics::kOfficial}};
  for (const std::string& table : RunnableKernels())
    ways.push_back({"cpu", table, 2, Numerics::kOfficial});
  for (const BackendOptions& way : ways) {
    const Outcome got = Train(set, way);
    EXPECT_TRUE(SameBits(got.gradients, expected.gradients)) << way.kernels << " " << way.threads;
    EXPECT_TRUE(SameBits(got.masters, expected.masters)) << way.kernels << " " << way.threads;
  }
}

// A product with operands rounded to BF16 is off by 2^-9 of its root mean square, the square root
// of two of that if both are. A gradient passes some ten products a layer on its way down, whose
// errors are independent: 1.5 % after three layers and a draft block. Small tensors average less.
TEST(TrainingInvarianceTest, FastGradientsAreNearTheReference) {
  const std::string set = "g2_all_kinds";
  const Outcome expected = Train(set, {"reference", "", 0, Numerics::kOfficial});
  const Outcome got = Train(set, {"cpu", "", 2, Numerics::kOfficial});
  double worst = 0;
  for (const ParameterArrays::Part& part : expected.parts) {
    double error = 0, size = 0;
    for (int64_t i = part.begin; i < part.begin + part.size; ++i) {
      const auto at = static_cast<size_t>(i);
      error += std::pow(static_cast<double>(got.gradients[at]) - expected.gradients[at], 2);
      size += std::pow(static_cast<double>(expected.gradients[at]), 2);
    }
    if (size == 0) continue;
    const double relative = std::sqrt(error / size);
    worst = std::max(worst, relative);
    EXPECT_LT(relative, part.size >= 1024 ? 0.03 : 0.1) << part.spec.name;
  }
  EXPECT_GT(worst, 1e-5) << "both passes computed the same";
}

}  // namespace
}  // namespace toaster
