// The indexer's choice for one token, all threads together, in the shapes of DeepSeek V4 Flash:
// what a layer of ratio 4 does at every decoded token. "%integer" is the share of the table's best
// integer products, the median of the shares of single choices in what the machine does just before
// and after each of them; "%memory" the share of reading the keys, as fast as could be read before
// each of the repetitions. The medians of repetitions are what to quote.
//
//   toaster_bench --benchmark_filter=SelectEntries --benchmark_repetitions=9

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

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

/// What the machine does just now. Threads that were busy a moment ago still watch for more work;
/// they get the time to fall asleep.
double Int8RateNow(const kernels::KernelTable& kernels, ThreadPool& pool) {
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  pause();
  const double rate = kernels::CurrentInt8Rate(kernels, pool);
  pause();
  return rate;
}

double Median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
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
  const double operations = 2.0 * static_cast<double>(count * kHeads * kWidth);
  const double bytes = static_cast<double>(count * keys.row_bytes());
  std::vector<double> integer_shares, memory_shares;
  double rate_before = Int8RateNow(kernels, pool);
  for (auto _ : state) {
    q.CopyFrom(first_q);
    weights.CopyFrom(first_weights);
    const auto start = std::chrono::steady_clock::now();
    backend.SelectEntries(q, weights, rotation, {&segment, 1}, key_list, kTopk, selection, nullptr);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double rate_after = Int8RateNow(kernels, pool);
    integer_shares.push_back(operations / seconds / ((rate_before + rate_after) / 2));
    memory_shares.push_back(bytes / seconds / limits.read_bytes_per_s);
    rate_before = rate_after;
    state.SetIterationTime(seconds);
  }
  state.counters["%integer"] = 100 * Median(integer_shares);
  state.counters["%memory"] = 100 * Median(memory_shares);
}

const bool registered = [] {
  for (const std::string& table : kernels::RunnableTables()) {
    const std::string name = "SelectEntries/" + table;
    benchmark::RegisterBenchmark(name.c_str(), SelectEntries, table)
        ->Arg(16384)
        ->Arg(131072)
        ->Arg(1000000)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace toaster
