// Matrix products in the shapes of DeepSeek V4 Flash, by table, threads and tokens. Counters:
// `read`, bytes of weights per second, and `flops`, each also as a share of the limit measured in
// the same run. The weights lie in huge pages and are many enough that no cache holds them.
//
//   toaster_bench --benchmark_filter='Matmul/avx512'

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <map>
#include <memory>
#include <string>

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/limits.h"
#include "backend/cpu/kernels/test_support.h"
#include "base/flush_denormals.h"
#include "base/thread_pool.h"

namespace toaster::kernels {
namespace {

enum class Format { kBf16, kE4m3, kE2m1, kFloat };

struct Shape {
  const char* name;
  Format format;
  int64_t rows, inner;
  double row_bytes() const {
    switch (format) {
      case Format::kBf16:
        return 2.0 * static_cast<double>(inner);
      case Format::kE4m3:
        return 1.0 * static_cast<double>(inner);
      case Format::kE2m1:
        return 0.5 * static_cast<double>(inner);
      case Format::kFloat:
        return 4.0 * static_cast<double>(inner);
    }
    return 0;
  }
};

constexpr Shape kShapes[] = {
    {"expert_w1", Format::kE2m1, 2048, 4096}, {"expert_w2", Format::kE2m1, 4096, 2048},
    {"wq_a", Format::kE4m3, 1024, 4096},      {"wq_b", Format::kE4m3, 32768, 1024},
    {"wo_a", Format::kE4m3, 8192, 4096},      {"wo_b", Format::kE4m3, 4096, 8192},
    {"head", Format::kBf16, 129280, 4096},    {"hc_fn", Format::kFloat, 24, 16384},
};

const MachineLimits& Limits(const std::string& table, ThreadPool& pool) {
  static std::map<std::pair<std::string, int>, MachineLimits> measured;
  auto& limits = measured[{table, pool.threads()}];
  if (limits.read_bytes_per_s == 0) limits = MeasureLimits(*Choose(table.c_str()), pool);
  return limits;
}

ThreadPool& Pool(int threads) {
  static std::map<int, std::unique_ptr<ThreadPool>> pools;
  auto& pool = pools[threads];
  if (!pool) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

// 1 GiB of bytes that make ordinary numbers in every format: no E4M3 NaN, small BF16 exponents.
uint8_t* WeightMemory() {
  constexpr int64_t kBytes = int64_t{1100} << 20;
  static uint8_t* const memory = [] {
    auto* data = static_cast<uint8_t*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    madvise(data, kBytes, MADV_HUGEPAGE);
    uint64_t state = 1;
    for (int64_t i = 0; i < kBytes; i += 2) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      data[i] = static_cast<uint8_t>(state >> 56 & 0xF7);
      data[i + 1] = static_cast<uint8_t>(0x30 | (state >> 48 & 0x87));
    }
    return data;
  }();
  return memory;
}

void Matmul(benchmark::State& state, const Shape& shape, const std::string& name, int threads,
            int64_t tokens) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  ThreadPool& pool = Pool(threads);
  const MachineLimits& limits = Limits(name, pool);
  const auto row_bytes = static_cast<int64_t>(shape.row_bytes());
  const int64_t matrix_bytes = shape.rows * row_bytes;
  const int64_t matrices = std::max<int64_t>(1, (int64_t{1} << 30) / matrix_bytes);
  const int64_t stride = shape.inner + 32;
  AlignedArray<uint16_t> x(tokens * stride);
  AlignedArray<float> x_float(shape.format == Format::kFloat ? tokens * stride : 0);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = FloatToBf16(static_cast<float>(i % 13 - 6));
  for (int64_t i = 0; i < x_float.size(); ++i) x_float[i] = static_cast<float>(i % 13 - 6);
  const std::vector<uint8_t> scales(shape.rows * shape.inner / 32, 121);
  AlignedArray<float> y(tokens * shape.rows);
  std::vector<std::unique_ptr<AlignedArray<std::byte>>> scratch;
  for (int i = 0; i < threads; ++i) {
    scratch.push_back(std::make_unique<AlignedArray<std::byte>>(MatmulScratchBytes(shape.inner)));
  }
  const uint8_t* memory = WeightMemory();
  int64_t turn = 0;
  for (auto _ : state) {
    const uint8_t* data = memory + turn++ % matrices * matrix_bytes;
    // Roughly as CpuBackend cuts its pieces.
    const int64_t piece = tokens > 8 && shape.format != Format::kFloat ? 512 : 128;
    pool.ParallelFor(shape.rows, piece, [&](int64_t begin, int64_t end, int thread) {
      const int64_t scale_row = shape.format == Format::kE2m1
                                    ? begin * (shape.inner / 32)
                                    : begin / kScaleTileRows * (shape.inner / 128);
      const WeightRows w = {data + begin * row_bytes, row_bytes, end - begin, shape.inner,
                            scales.data() + scale_row};
      std::byte* work = scratch[thread]->data();
      switch (shape.format) {
        case Format::kBf16:
          return table.matmul_bf16(w, x.data(), stride, tokens, y.data() + begin, shape.rows, work);
        case Format::kE4m3:
          return table.matmul_e4m3(w, x.data(), stride, tokens, y.data() + begin, shape.rows, work);
        case Format::kE2m1:
          return table.matmul_e2m1(w, x.data(), stride, tokens, y.data() + begin, shape.rows, work);
        case Format::kFloat:
          return table.matmul_f32(w, x_float.data(), stride, tokens, y.data() + begin, shape.rows,
                                  work);
      }
    });
  }
  const double scale_bytes = shape.format == Format::kE2m1 ? 1.0 / 32 : 0;
  const double bytes = (shape.row_bytes() + scale_bytes * static_cast<double>(shape.inner)) *
                       static_cast<double>(shape.rows);
  const double flops = 2.0 * static_cast<double>(shape.rows * shape.inner * tokens);
  const double peak =
      shape.format == Format::kFloat ? limits.float_flops_per_s : limits.bf16_flops_per_s;
  const auto rate = [&](double amount) {
    return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["read"] = rate(bytes);
  state.counters["flops"] = rate(flops);
  state.counters["%read"] = rate(bytes * 100 / limits.read_bytes_per_s);
  state.counters["%flops"] = rate(flops * 100 / peak);
}

void PrintLimits(benchmark::State& state, const std::string& name, int threads) {
  for (auto _ : state) {
    const MachineLimits limits = MeasureLimits(*Choose(name.c_str()), Pool(threads));
    state.counters["read"] = limits.read_bytes_per_s;
    state.counters["bf16_flops"] = limits.bf16_flops_per_s;
    state.counters["int8_ops"] = limits.int8_ops_per_s;
    state.counters["float_flops"] = limits.float_flops_per_s;
  }
}

const bool registered = [] {
  for (const std::string& table : RunnableTables()) {
    for (const int threads : {1, 2}) {
      const std::string tail = "/" + table + "/threads:" + std::to_string(threads);
      benchmark::RegisterBenchmark(("Limits" + tail).c_str(), PrintLimits, table, threads)
          ->Iterations(1)
          ->UseRealTime();
      for (const Shape& shape : kShapes) {
        for (const int64_t tokens : {1, 2, 4, 8, 12, 16, 64, 512}) {
          if (shape.rows > 100000 && tokens > 64) continue;
          const std::string name =
              std::string("Matmul") + tail + "/" + shape.name + "/tokens:" + std::to_string(tokens);
          benchmark::RegisterBenchmark(name.c_str(), Matmul, shape, table, threads, tokens)
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace toaster::kernels
