// The indexer's choice for one token, all threads together, in the shapes of DeepSeek V4 Flash:
// what a layer of ratio 4 does at every decoded token. The limits are measured before each of the
// repetitions, whose medians are what to quote: "%integer" is the share of the table's best integer
// products, "%memory" that of reading the keys.
//
//   toaster_bench --benchmark_filter=SelectEntries --benchmark_repetitions=9

#include <benchmark/benchmark.h>

#include <string>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/limits.h"
#include "backend/cpu/kernels/test_support.h"
#include "base/flush_denormals.h"
#include "base/thread_pool.h"
#include "tensor/cache_rows.h"

namespace toaster {
namespace {

constexpr int64_t kHeads = 64, kWidth = 128, kPairs = 32, kRatio = 4, kPageRows = 32, kTopk = 512;

void Fill(kernels::TestRandom& random, Tensor& tensor, std::initializer_list<int64_t> shape) {
  tensor.Reshape(shape);
  for (int64_t i = 0; i < tensor.size(); ++i)
    tensor.data()[i] = Bf16ToFloat(random.Bf16(kernels::Temper::kOrdinary));
}

void SelectEntries(benchmark::State& state, const std::string& table) {
  const ScopedFlushDenormals flush;
  const kernels::KernelTable& kernels = *kernels::Choose(table.c_str());
  CpuBackend backend(Numerics::kOfficial, UsableProcessors(), kernels);
  ThreadPool pool(UsableProcessors());
  const MachineLimits limits = kernels::MeasureLimits(kernels, pool);
  kernels::TestRandom random(1);
  const int64_t tokens = state.range(0), count = tokens / kRatio;
  PagedRows keys(KeyBytes(kWidth), kPageRows);
  std::vector<float> values(kWidth);
  for (int64_t i = 0; i < count; ++i) {
    for (float& value : values) value = Bf16ToFloat(random.Bf16(kernels::Temper::kOrdinary));
    EncodeKey(values.data(), kWidth, keys.Append());
  }
  Tensor first_q, first_weights, q, weights;
  Fill(random, first_q, {1, kHeads, kWidth});
  Fill(random, first_weights, {1, kHeads});
  Rotation rotation;
  rotation.cosine.Reshape({1, kPairs});
  rotation.cosine.Fill(1);
  rotation.sine.Reshape({1, kPairs});
  rotation.sine.Fill(0);
  const Segment segment = {0, 1, tokens - 1};
  const PagedRows* const key_list[] = {&keys};
  Selection selection;
  for (auto _ : state) {
    q.CopyFrom(first_q);
    weights.CopyFrom(first_weights);
    backend.SelectEntries(q, weights, rotation, {&segment, 1}, key_list, kTopk, selection, nullptr);
  }
  const auto share = [&](double amount, double limit) {
    return benchmark::Counter(100 * amount / limit, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["%integer"] =
      share(2.0 * static_cast<double>(count * kHeads * kWidth), limits.int8_ops_per_s);
  state.counters["%memory"] =
      share(static_cast<double>(count * keys.row_bytes()), limits.read_bytes_per_s);
}

const bool registered = [] {
  for (const std::string& table : kernels::RunnableTables()) {
    const std::string name = "SelectEntries/" + table;
    benchmark::RegisterBenchmark(name.c_str(), SelectEntries, table)
        ->Arg(16384)
        ->Arg(1000000)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace toaster
