// Kernels of attention and the indexer in the shapes of DeepSeek V4 Flash, on one thread and from
// the caches. Counters: `rate` of what is named in the benchmark and, where multiply-adds are what
// it does, its share of the limit measured in the same run.
//
//   toaster_bench --benchmark_filter='Kernel/.*/avx512'

#include <benchmark/benchmark.h>

#include <map>
#include <string>

#include "backend/cpu/index_queries.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/limits.h"
#include "backend/cpu/kernels/test_support.h"
#include "base/flush_denormals.h"
#include "base/thread_pool.h"

namespace toaster::kernels {
namespace {

constexpr int64_t kHeads = 64, kWidth = 512, kSlots = 640;
constexpr int64_t kIndexHeads = 64, kIndexWidth = 128, kKeys = 1024;

const MachineLimits& Limits(const std::string& table) {
  static std::map<std::string, MachineLimits> measured;
  auto& limits = measured[table];
  if (limits.read_bytes_per_s == 0) {
    ThreadPool pool(1);
    limits = MeasureLimits(*Choose(table.c_str()), pool);
  }
  return limits;
}

struct OrdinaryBf16 : AlignedArray<uint16_t> {
  explicit OrdinaryBf16(int64_t n) : AlignedArray<uint16_t>(n) {
    TestRandom random(1);
    for (int64_t i = 0; i < n; ++i) (*this)[i] = random.Bf16(Temper::kOrdinary);
  }
};

void Count(benchmark::State& state, double amount, double limit) {
  constexpr auto kRate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["rate"] = benchmark::Counter(amount, kRate);
  if (limit > 0) state.counters["%limit"] = benchmark::Counter(100 * amount / limit, kRate);
}

// Multiply-adds of one token's scores: entries are the weights, heads the tokens.
void Scores(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  const OrdinaryBf16 q(kHeads * kWidth), k(kSlots * kWidth);
  AlignedArray<float> y(kHeads * kSlots);
  AlignedArray<std::byte> scratch(MatmulScratchBytes(kWidth));
  const WeightRows w = {reinterpret_cast<const uint8_t*>(k.data()), 2 * kWidth, kSlots, kWidth,
                        nullptr};
  for (auto _ : state) {
    table.matmul_bf16(w, q.data(), kWidth, kHeads, y.data(), kSlots, scratch.data());
  }
  Count(state, 2.0 * kHeads * kSlots * kWidth, Limits(name).bf16_flops_per_s);
}

void Values(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  const OrdinaryBf16 p(kHeads * kSlots), v(kSlots * kWidth);
  AlignedArray<float> o(kHeads * kWidth);
  for (auto _ : state) {
    table.accumulate_bf16(p.data(), kSlots, 1, v.data(), kWidth, kHeads, kSlots, kWidth, o.data(),
                          kWidth);
  }
  Count(state, 2.0 * kHeads * kSlots * kWidth, Limits(name).bf16_flops_per_s);
}

void Softmax(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  AlignedArray<float> scores(kSlots);
  for (int64_t i = 0; i < kSlots; ++i) scores[i] = -0.01f * static_cast<float>(i % 1000);
  AlignedArray<uint16_t> p(kSlots);
  float lanes[16] = {};
  for (auto _ : state) {
    table.softmax_numerators(scores.data(), kSlots, table.scale_scores(scores.data(), kSlots, 1.0f),
                             p.data(), lanes);
  }
  Count(state, kSlots, 0);
}

void Entries(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  constexpr int64_t kBytes = 584;
  std::vector<uint8_t> entries(64 * kBytes, 120);
  AlignedArray<uint16_t> out(kWidth);
  int64_t turn = 0;
  for (auto _ : state) {
    table.expand_entry(entries.data() + turn++ % 64 * kBytes, 448, 64, out.data());
  }
  Count(state, 1, 0);
}

/// One query's work on the keys of one page; `work` gets the query, prepared for a table.
template <typename Work>
void IndexWork(benchmark::State& state, const std::string& name, const Work& work) {
  const ScopedFlushDenormals flush;
  constexpr int64_t kKeyBytes = kIndexWidth / 2 + kIndexWidth / 32;
  TestRandom random(1);
  std::vector<uint8_t> heads(kIndexHeads * kKeyBytes), keys(kKeys * kKeyBytes);
  for (std::vector<uint8_t>* bytes : {&heads, &keys}) {
    for (size_t i = 0; i < bytes->size(); ++i)
      (*bytes)[i] = i % kKeyBytes < kIndexWidth / 2 ? static_cast<uint8_t>(random.Bits()) : 125;
  }
  IndexQueries queries;
  queries.Resize(1, kIndexHeads, kIndexWidth, *Choose(name.c_str()));
  queries.Set(0, heads.data(), std::vector<float>(kIndexHeads, 0.25f).data());
  const uint8_t* const page = keys.data();
  work(queries, KeyPages{&page, kKeys});
  Count(state, 2.0 * kKeys * kIndexHeads * kIndexWidth, Limits(name).int8_ops_per_s);
}

void ScoreKeys(benchmark::State& state, const std::string& name) {
  IndexWork(state, name, [&](const IndexQueries& queries, const KeyPages& keys) {
    std::vector<float> out(kKeys);
    for (auto _ : state)
      Choose(name.c_str())->index_scores(queries.Row(0), keys, kKeys, out.data());
  });
}

void FindCandidates(benchmark::State& state, const std::string& name) {
  auto* const find = Choose(name.c_str())->index_candidates;
  if (find == nullptr) {
    state.SkipWithError("this table has none");
    return;
  }
  IndexWork(state, name, [&](const IndexQueries& queries, const KeyPages& keys) {
    constexpr float kNone = 1e20f;
    for (auto _ : state)
      benchmark::DoNotOptimize(find(queries.Candidates(0), keys, kKeys, 0, kNone, {}));
  });
}

// Numbers through Hadamard rotation and E2M1 coding.
void IndexHeads(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  AlignedArray<float> x(kIndexWidth);
  for (int64_t i = 0; i < kIndexWidth; ++i) x[i] = static_cast<float>(i % 7);
  uint8_t key[kIndexWidth / 2 + kIndexWidth / 32];
  for (auto _ : state) {
    table.hadamard(x.data(), kIndexWidth);
    table.encode_key(x.data(), kIndexWidth, key);
  }
  Count(state, kIndexWidth, 0);
}

void Quantise(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  AlignedArray<float> x(4096);
  for (int64_t i = 0; i < 4096; ++i) x[i] = static_cast<float>(i % 77);
  AlignedArray<uint16_t> out(4096);
  for (auto _ : state) table.quantize_e4m3(x.data(), 4096, out.data());
  Count(state, 4096, 0);
}

void Activation(benchmark::State& state, const std::string& name) {
  const ScopedFlushDenormals flush;
  const KernelTable& table = *Choose(name.c_str());
  AlignedArray<float> gate(2048), up(2048), out(2048);
  for (int64_t i = 0; i < 2048; ++i) gate[i] = up[i] = static_cast<float>(i % 7 - 3);
  for (auto _ : state) table.swiglu(gate.data(), up.data(), 2048, 10.0f, 0.5f, out.data());
  Count(state, 2048, 0);
}

const bool registered = [] {
  using Body = void (*)(benchmark::State&, const std::string&);
  const std::pair<const char*, Body> bodies[] = {
      {"scores_flops", Scores},           {"values_flops", Values},
      {"softmax_numbers", Softmax},       {"expand_entries", Entries},
      {"index_scores_ops", ScoreKeys},    {"index_candidates_ops", FindCandidates},
      {"index_head_numbers", IndexHeads}, {"quantize_e4m3_numbers", Quantise},
      {"swiglu_numbers", Activation}};
  for (const auto& [what, body] : bodies) {
    for (const std::string& table : RunnableTables()) {
      const std::string name = std::string("Kernel/") + what + "/" + table;
      benchmark::RegisterBenchmark(name.c_str(), body, table);
    }
  }
  return true;
}();

}  // namespace
}  // namespace toaster::kernels
