// What is trained is what is served: a model after training steps in official numerics, written and
// loaded again, gives the logits of the training pass bit for bit.

#include <gtest/gtest.h>

#include <bit>
#include <fstream>

#include "base/flush_denormals.h"
#include "base/random.h"
#include "checkpoint/test_files.h"
#include "checkpoint/verify.h"
#include "engine/running_model.h"
#include "engine/session.h"
#include "golden_set.h"
#include "train/export_model.h"
#include "train/optimizer.h"
#include "train/training_pass.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

std::vector<int32_t> RandomTokens(const Config& config, int64_t count, uint64_t seed) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(Philox(seed, static_cast<uint64_t>(i), 0)[0] %
                                          static_cast<uint64_t>(config.vocab_size)));
  }
  return tokens;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

// Logits of every row by the forward pass of training, each document by itself in one pack.
void TrainingLogits(TrainingPass& pass, Model& model, std::span<const Document> documents,
                    ParameterArrays& gradients, Tensor& logits) {
  gradients.Clear();
  pass.Run(documents, {}, gradients);
  const ScopedFlushDenormals flush;
  model.Logits(pass.streams(), logits);
}

void TrainExportServe(const fs::path& checkpoint, bool quantised) {
  const ScopedFlushDenormals flush;
  const LoadedModel loaded = LoadModel(checkpoint);
  Config config = loaded.config;
  config.quantised = quantised;
  TrainedWeights weights(config, WeightStorage::kReleased);
  weights.CopyFrom(loaded.weights);
  weights.Store();
  const auto backend = CreateBackend({"cpu", "", 2, Numerics::kOfficial});
  const auto backward = CreateBackward({"cpu", "", 2, Numerics::kOfficial});
  Model model(weights.config(), weights.weights(), *backend);
  TrainingPass pass(model, weights.weights(), *backward);
  ParameterArrays gradients(weights.config(), weights.weights());
  Optimizer optimizer(weights, *backward);
  const std::vector<int32_t> tokens = RandomTokens(config, 30, 3);
  const std::vector<Document> documents = {{std::span(tokens).first(19)},
                                           {std::span(tokens).subspan(19)}};
  Tensor before, logits;
  TrainingLogits(pass, model, documents, gradients, before);
  const LossValues losses = pass.Run(documents, {}, gradients);
  optimizer.Step(weights, gradients, losses.loads, 0.01f);
  weights.Store();
  TrainingLogits(pass, model, documents, gradients, logits);
  EXPECT_FALSE(SameBits(before.values(), logits.values())) << "the step changed nothing";

  const test::TemporaryDirectory folder;
  const fs::path companions = folder.path() / "companions";
  fs::create_directories(companions);
  std::ofstream(companions / "tokenizer_config.json") << "{}";
  ThreadPool pool(2);
  ExportModel(weights, companions, folder.path() / "model", pool);
  EXPECT_TRUE(fs::exists(folder.path() / "model" / "tokenizer_config.json"));
  const VerifyReport report = VerifyCheckpoint(folder.path() / "model", pool);
  EXPECT_EQ(report.defects.size(), 0u);
  EXPECT_GT(report.tensors, 0);

  RunningModel served(LoadModel(folder.path() / "model"), {"cpu", "", 1, Numerics::kOfficial});
  EXPECT_EQ(served.config().quantised, quantised);
  int64_t row = 0;
  for (const Document& document : documents) {
    Session session(served.model(), 4);  // another chunking
    for (size_t length = 1; length <= document.tokens.size(); ++length, ++row) {
      session.Sync(document.tokens.first(length));
      EXPECT_TRUE(
          SameBits(session.logits(), {logits.Row(row), static_cast<size_t>(logits.width())}))
          << "token " << length;
    }
  }
}

TEST(TrainingExportTest, ServesTheBitsOfTraining) {
  for (const char* set : {"g2_all_kinds", "g4_fp8_experts"}) {
    SCOPED_TRACE(set);
    TrainExportServe(GoldenSet::Folder(set) / "checkpoint", true);
  }
}

TEST(TrainingExportTest, ServesTheBitsOfTrainingInBf16) {
  TrainExportServe(GoldenSet::Folder("g1_minimal") / "checkpoint", false);
}

TEST(TrainingExportTest, ServesTheBitsOfTrainingOfTheBuiltinModel) {
  TrainExportServe(fs::path(TOASTER_SOURCE_DIR) / "models" / "builtin", true);
}

// Masters that were never trained round to the numbers they came from.
TEST(TrainingExportTest, StoringWhatWasLoadedChangesNothing) {
  for (const std::string& set : GoldenSet::Names()) {
    const LoadedModel loaded = LoadModel(GoldenSet::Folder(set) / "checkpoint");
    TrainedWeights weights(loaded.config, WeightStorage::kReleased);
    weights.CopyFrom(loaded.weights);
    weights.Store();
    std::vector<float> expected, got;
    int64_t matrices = 0;
    std::map<std::string, Matrix> original;
    VisitTensors(loaded.config, loaded.weights, [&](const TensorSpec& spec, const auto& field) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, Matrix>)
        original[spec.name] = field;
    });
    VisitTensors(loaded.config, weights.weights(), [&](const TensorSpec& spec, const auto& field) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, Matrix>) {
        const Matrix& from = original.at(spec.name);
        // A matrix that the file has in BF16 is rounded if the layout quantises its kind.
        if (field.quantised() && !from.quantised()) return;
        ++matrices;
        expected.resize(static_cast<size_t>(spec.columns));
        got.resize(expected.size());
        for (int64_t r = 0; r < spec.rows; ++r) {
          ExpandRow(from, r, expected.data());
          ExpandRow(field, r, got.data());
          ASSERT_EQ(expected, got) << set << " " << spec.name << " row " << r;
        }
      }
    });
    EXPECT_GT(matrices, 20) << set;
  }
}

}  // namespace
}  // namespace toaster
