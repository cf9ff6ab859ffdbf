// Gradients of a whole model against central differences of its loss.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>
#include <string>

#include "base/flush_denormals.h"
#include "training_model.h"

namespace toaster {
namespace {

// The derivative of the loss along a tensor's own gradient is the gradient's length: central
// differences over two step widths, extrapolated, losses summed in double. Indexers are trained by
// their own loss alone, whose target is a constant for everything else.
//
// A loss of about 6 carries a rounding error of some 1e-6, which the width divides. What
// extrapolation leaves of the curvature is of order h^4, below 1 % where the step moves the loss by
// 0.02.
void CheckSlopes(bool all) {
  const ScopedFlushDenormals flush;
  const TrainingRecording recording("t3_short");
  TrainingModel trained(recording, false, true);
  ParameterArrays& masters = trained.weights.masters();
  const std::span<const int32_t> tokens = trained.tokens;
  const std::vector<Document> documents = {{tokens.first(9)}, {tokens.subspan(9, 5)}};
  TrainingPass pass(trained.model, trained.weights.weights(), *trained.backward);
  ParameterArrays gradients(trained.weights.config(), trained.weights.weights()),
      unused(trained.weights.config(), trained.weights.weights());
  const LossWeights model_losses{1, 0.3f, 0.1f, 0}, index_loss{0, 0, 0, 1};
  int checked = 0;
  std::set<std::string> kinds;
  for (const ParameterArrays::Part& part : masters.parts()) {
    const bool indexer = part.spec.name.find("indexer.") != std::string::npos;
    const LossWeights& weights = indexer ? index_loss : model_losses;
    std::string kind = part.spec.name;  // without the numbers of layers and experts
    kind.erase(std::remove_if(kind.begin(), kind.end(), [](char c) { return std::isdigit(c); }),
               kind.end());
    if (!kinds.insert(kind).second && !all) continue;
    if (!all && kinds.size() % 6 != 1) continue;
    gradients.Clear();
    pass.Run(documents, weights, gradients);
    const std::span<const float> grad = gradients.Values(part);
    double grad_squares = 0, squares = 0;
    for (const float g : grad) grad_squares += static_cast<double>(g) * g;
    const double length = std::sqrt(grad_squares);
    if (length < 1e-4) continue;  // an expert that no token chose
    const std::vector<float> start(masters.Values(part).begin(), masters.Values(part).end());
    for (const float x : start) squares += static_cast<double>(x) * x;
    const auto loss_at = [&](double step) {
      for (size_t i = 0; i < start.size(); ++i)
        masters.Values(part)[i] = static_cast<float>(start[i] + step * grad[i] / length);
      trained.weights.Store();
      return pass.Run(documents, weights, unused).total;
    };
    // Small against the tensor too, so that no choice of experts changes. Scores of an indexer have
    // kinks, and routers choose, so their steps are smaller still.
    const bool careful = indexer || kind.find("gate.weight") != std::string::npos;
    const double h = std::min(0.02 / length, 0.01 * std::sqrt(squares)) * (careful ? 0.05 : 1.0);
    const double near = (loss_at(h) - loss_at(-h)) / (2 * h),
                 far = (loss_at(2 * h) - loss_at(-2 * h)) / (4 * h);
    EXPECT_NEAR((4 * near - far) / 3, length, 0.01 * length + (indexer ? 1e-7 : 2e-6) / h)
        << part.spec.name;
    std::copy(start.begin(), start.end(), masters.Values(part).begin());
    trained.weights.Store();
    ++checked;
  }
  EXPECT_GT(checked, all ? 60 : 5);
}

TEST(TrainingSlopeTest, SomeTensors) { CheckSlopes(false); }
TEST(TrainingSlopeLongTest, EveryTensor) { CheckSlopes(true); }

}  // namespace
}  // namespace toaster
