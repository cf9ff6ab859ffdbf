// Forward and backward of a batch, and the optimiser's step, on a model of 18.9 million parameters:
// hidden size 256, eight layers of all kinds, eight experts of which two are used, four sequences
// of 1,024 tokens. Counters: tokens per second, and additions and multiplications in matrix
// products per second (TrainingFlopsPerToken), and their share of the peak in BF16 products, which
// is measured before and after every step: share_of_peak of the best of several attempts,
// share_of_current of the mean of single ones, which work of others on the machine slows as it
// slows a step.
//
//   toaster_bench --benchmark_filter=Training

#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>

#include "backend/registry.h"
#include "base/flush_denormals.h"
#include "base/memory_use.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "train/optimizer.h"
#include "train/trainer.h"
#include "train/training_pass.h"

namespace toaster {
namespace {

Config BenchConfig() {
  Config config = Config::Preset("tiny");
  config.hidden_size = 256;
  config.vocab_size = 8192;
  config.num_hidden_layers = 8;
  config.num_hash_layers = 2;
  config.num_nextn_predict_layers = 1;
  config.compress_ratios = {0, 0, 4, 128, 4, 128, 4, 128, 0};
  config.num_attention_heads = 4;
  config.q_lora_rank = 128;
  config.n_routed_experts = 8;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 256;
  config.Validate("the benchmark");
  return config;
}

class Trained {
 public:
  explicit Trained(int threads)
      : weights(BenchConfig(), WeightStorage::kReleased),
        backend(CreateBackend({"cpu", "", threads, Numerics::kOfficial})),
        backward(CreateBackward({"cpu", "", threads, Numerics::kOfficial})),
        model(weights.config(), weights.weights(), *backend),
        pass(model, weights.weights(), *backward),
        gradients(weights.config(), weights.weights()),
        optimizer(weights, *backward) {
    uint64_t counter = 0;
    for (const ParameterArrays::Part& part : weights.masters().parts()) {
      for (float& x : weights.masters().Values(part)) {
        const auto bits = Philox(1, counter++, 0);
        const double uniform = 2 * UniformDouble(bits[0], bits[1]) - 1;
        x = part.spec.role == TensorRole::kNorm ? 1.0f : static_cast<float>(0.035 * uniform);
      }
    }
    weights.Store();
    for (uint64_t i = 0; i < kSequences * kLength; ++i) {
      tokens.push_back(static_cast<int32_t>(Philox(2, i, 0)[0] %
                                            static_cast<uint64_t>(weights.config().vocab_size)));
    }
    for (size_t i = 0; i < kSequences; ++i)
      documents.push_back({std::span<const int32_t>(tokens).subspan(i * kLength, kLength)});
  }

  static constexpr size_t kSequences = 4, kLength = 1024;
  TrainedWeights weights;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<BackwardBackend> backward;
  Model model;
  TrainingPass pass;
  ParameterArrays gradients;
  Optimizer optimizer;
  std::vector<int32_t> tokens;
  std::vector<Document> documents;
};

void Training(benchmark::State& state, bool step) {
  const ScopedFlushDenormals flush;
  const int threads = UsableProcessors();
  Trained trained(threads);
  KeepFreedMemory();
  const auto run = [&] {
    trained.gradients.Clear();
    const LossValues losses = trained.pass.Run(trained.documents, {}, trained.gradients);
    if (step) {
      trained.optimizer.Step(trained.weights, trained.gradients, losses.loads, 1e-4f);
      trained.weights.Store(trained.backward.get());
    }
  };
  for (int i = 0; i < 2; ++i) run();  // the first steps of many also ask for their memory
  int64_t tokens = 0, peaks = 0;
  double peak = 0, current = 0, seconds = 0;
  const auto measure_peak = [&] {
    current += trained.backend->CurrentBf16Rate();
    peak += trained.backend->MeasureLimits().bf16_flops_per_s;
    ++peaks;
  };
  measure_peak();
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    run();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    tokens += static_cast<int64_t>(trained.tokens.size());
    state.PauseTiming();
    measure_peak();
    state.ResumeTiming();
  }
  double parameters = 0;
  for (const auto& part : trained.weights.masters().parts())
    parameters += static_cast<double>(part.size);
  state.counters["parameters"] = parameters;
  state.counters["tokens_per_s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
  const double flops =
      static_cast<double>(tokens) * TrainingFlopsPerToken(trained.weights.config());
  state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["share_of_peak"] = flops / seconds / (peak / static_cast<double>(peaks));
  state.counters["share_of_current"] = flops / seconds / (current / static_cast<double>(peaks));
}

BENCHMARK_CAPTURE(Training, gradients, false)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(Training, whole_step, true)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace toaster
