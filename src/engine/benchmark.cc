#include "engine/benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "base/disk_speed.h"
#include "base/error.h"
#include "base/random.h"
#include "engine/speed_estimate.h"

namespace toaster {

namespace {

constexpr int64_t kDistinctRows = 64;  // random rows that filled caches are made of

// The random numbers of a benchmark, drawn one after another.
class RandomSource {
 public:
  RandomSource(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}
  int64_t Below(int64_t count) {
    const auto bits = Philox(seed_, next_++, stream_);
    return static_cast<int64_t>((uint64_t{bits[0]} << 32 | bits[1]) % static_cast<uint64_t>(count));
  }
  /// In [-1, 1).
  float Value() { return static_cast<float>(Below(1 << 20)) * 0x1p-19f - 1.0f; }

 private:
  uint64_t seed_, stream_, next_ = 0;
};

// Some rows of a cache, each made of random numbers by `encode(values, row)`.
template <typename Encode>
std::vector<uint8_t> RandomRows(int64_t width, int64_t row_bytes, RandomSource& random,
                                const Encode& encode) {
  std::vector<uint8_t> rows(static_cast<size_t>(kDistinctRows * row_bytes));
  std::vector<float> values(static_cast<size_t>(width));
  for (int64_t i = 0; i < kDistinctRows; ++i) {
    for (float& value : values) value = RoundBf16(random.Value());
    encode(values.data(), rows.data() + i * row_bytes);
  }
  return rows;
}

void AppendRows(PagedRows& target, const std::vector<uint8_t>& rows, int64_t count,
                RandomSource& random) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(target.Append(), rows.data() + random.Below(kDistinctRows) * target.row_bytes(),
                static_cast<size_t>(target.row_bytes()));
  }
}

// What a measurement took.
struct Measurement {
  double seconds = 0;
  Work work;
  double disk_bytes = 0;
};

// Bytes read so far of experts that were used.
double NeededBytes(const RunningModel& model) {
  return model.expert_store() ? static_cast<double>(model.expert_store()->figures().needed_bytes)
                              : 0;
}

// What the disk of a model gives whose experts are read.
double DiskRate(const RunningModel& model) {
  if (model.expert_store() == nullptr) return 0;
  return DirectReadRate(model.loaded().checkpoint.ShardPaths()).value_or(0);
}

// Calls `measure` (once more than counted) and sums up.
BenchmarkRun Measure(BenchmarkRun run, int64_t repeat, RunningModel& model, Profile& profile,
                     const std::function<void()>& measure) {
  std::vector<Measurement> measurements;
  std::vector<MachineLimits> limits;
  std::vector<double> disk_rates;
  for (int64_t i = -1; i < repeat; ++i) {
    if (i >= 0) {
      limits.push_back(model.backend().MeasureLimits());
      disk_rates.push_back(DiskRate(model));
    }
    profile.Clear();
    const double needed = NeededBytes(model);
    const auto start = std::chrono::steady_clock::now();
    measure();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (i < 0) continue;
    measurements.push_back({seconds.count(), profile.Total().work, NeededBytes(model) - needed});
    run.profile.Add(profile);
    run.profile.Add("between operations", seconds.count() - profile.Total().seconds, {});
  }
  std::sort(measurements.begin(), measurements.end(),
            [](const Measurement& a, const Measurement& b) { return a.seconds < b.seconds; });
  const Measurement& median = measurements[measurements.size() / 2];
  run.seconds = median.seconds;
  run.work = median.work;
  run.disk_bytes = median.disk_bytes;
  limits.push_back(model.backend().MeasureLimits());
  run.limits = MedianLimits(limits);
  disk_rates.push_back(DiskRate(model));
  std::sort(disk_rates.begin(), disk_rates.end());
  run.disk_bytes_per_s = disk_rates[disk_rates.size() / 2];
  run.least_seconds = measurements.front().seconds;
  run.most_seconds = measurements.back().seconds;
  return run;
}

// The tokens of a benchmark, one after another.
class TokenSource {
 public:
  TokenSource(const Config& config, const BenchmarkOptions& options, uint64_t stream)
      : vocabulary_(config.vocab_size), given_(options.tokens), random_(options.seed, stream) {}
  std::vector<int32_t> Take(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) {
      token = given_.empty() ? static_cast<int32_t>(random_.Below(vocabulary_))
                             : given_[next_++ % given_.size()];
    }
    return tokens;
  }

 private:
  int64_t vocabulary_;
  std::span<const int32_t> given_;
  size_t next_ = 0;
  RandomSource random_;
};

void LastLogits(Model& model, const Tensor& streams, int64_t rows, Tensor& last, Tensor& logits) {
  last.Reshape({rows, streams.extent(1), streams.extent(2)});
  std::copy_n(streams.Row(streams.rows() - rows), last.size(), last.data());
  model.Logits(last, logits);
}

BenchmarkRun BenchmarkPrefill(RunningModel& model, Profile& profile, int64_t length,
                              const BenchmarkOptions& options) {
  BenchmarkRun run;
  run.kind = "prefill";
  run.tokens = length;
  const std::vector<int32_t> tokens = TokenSource(model.config(), options, 1).Take(length);
  Tensor streams, last, logits;
  return Measure(std::move(run), options.repeat, model, profile, [&] {
    const auto cache = model.model().NewCache();
    for (int64_t first = 0; first < length; first += options.chunk) {
      const int64_t count = std::min(options.chunk, length - first);
      const SequenceChunk chunk{
          std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
          cache.get()};
      model.model().Forward({&chunk, 1}, streams);
    }
    LastLogits(model.model(), streams, 1, last, logits);
  });
}

BenchmarkRun BenchmarkDecode(RunningModel& model, Profile& profile, int64_t depth, int64_t batch,
                             const BenchmarkOptions& options) {
  BenchmarkRun run;
  run.kind = "decode";
  run.tokens = options.steps * batch;
  run.depth = depth;
  run.batch = batch;
  TokenSource source(model.config(), options, 2);
  std::vector<std::unique_ptr<SequenceCache>> caches;
  for (int64_t i = 0; i < batch; ++i) {
    caches.push_back(model.model().NewCache());
    FillCache(*caches.back(), model.config(), model.backend(), depth,
              options.seed + static_cast<uint64_t>(i));
  }
  Tensor streams, logits;
  return Measure(std::move(run), options.repeat, model, profile, [&] {
    for (int64_t step = 0; step < options.steps; ++step) {
      const std::vector<int32_t> tokens = source.Take(batch);
      std::vector<SequenceChunk> chunks;
      for (size_t i = 0; i < tokens.size(); ++i) {
        chunks.push_back({std::span(tokens).subspan(i, 1), caches[i].get()});
      }
      model.model().Forward(chunks, streams);
      model.model().Logits(streams, logits);
    }
  });
}

double PlannedSpeed(const RunningModel& model, const BenchmarkRun& run) {
  const MemoryPlan& plan = model.plan();
  if (run.batch != 1 || plan.chunk <= 0) return 0;
  const WeightSizes sizes = SizesOf(model.config());
  const bool prefill = run.kind == "prefill";
  const SpeedEstimate estimate =
      EstimateSpeed(model.config(), sizes, plan, {run.limits, run.disk_bytes_per_s},
                    {.depth = run.depth, .prompt = prefill ? run.tokens : 0});
  return prefill ? estimate.prefill_tokens_per_s : estimate.decode_tokens_per_s;
}

void CheckLength(const Config& config, int64_t tokens) {
  if (config.max_position_embeddings > 0 && tokens > config.max_position_embeddings) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the benchmark needs {} tokens of context, and this model's limit "
                            "(max_position_embeddings) is {}; take shorter prompts or depths",
                            tokens, config.max_position_embeddings));
  }
}

}  // namespace

void FillCache(SequenceCache& cache, const Config& config, const Backend& backend, int64_t length,
               uint64_t seed) {
  const EntryShape shape{config.head_dim - config.qk_rope_head_dim, config.qk_rope_head_dim};
  const int64_t entry_bytes = backend.EntryRowBytes(shape);
  const bool official = backend.official();
  RandomSource random(seed, 3);
  const std::vector<uint8_t> entries =
      RandomRows(shape.width(), entry_bytes, random, [&](const float* values, uint8_t* row) {
        official ? EncodeEntry(values, shape, row)
                 : static_cast<void>(std::memcpy(row, values, static_cast<size_t>(entry_bytes)));
      });
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    BlockCache& block = cache.block(layer);
    const int64_t ratio = config.ratio(layer);
    const int64_t window = std::min(length, config.sliding_window);
    std::vector<uint8_t> chunk;
    for (int64_t i = 0; i < window; ++i) {
      const auto row = entries.begin() + random.Below(kDistinctRows) * entry_bytes;
      chunk.insert(chunk.end(), row, row + entry_bytes);
    }
    block.KeepWindow(chunk.data(), length - window, window, entry_bytes, config.sliding_window);
    if (ratio == 0) continue;
    AppendRows(block.entries, entries, length / ratio, random);
    if (ratio != 4) continue;
    const int64_t width = config.index_head_dim, key_bytes = backend.KeyRowBytes(width);
    const std::vector<uint8_t> keys =
        RandomRows(width, key_bytes, random, [&](const float* values, uint8_t* row) {
          official ? EncodeKey(values, width, row)
                   : static_cast<void>(std::memcpy(row, values, static_cast<size_t>(key_bytes)));
        });
    AppendRows(block.keys, keys, length / ratio, random);
  }
  cache.Advance(length);
}

MachineLimits MedianLimits(std::span<const MachineLimits> limits) {
  const auto median = [&](double MachineLimits::*limit) {
    std::vector<double> values;
    for (const MachineLimits& one : limits) values.push_back(one.*limit);
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
  };
  return {.read_bytes_per_s = median(&MachineLimits::read_bytes_per_s),
          .bf16_flops_per_s = median(&MachineLimits::bf16_flops_per_s),
          .int8_ops_per_s = median(&MachineLimits::int8_ops_per_s),
          .float_flops_per_s = median(&MachineLimits::float_flops_per_s)};
}

void RunBenchmark(RunningModel& model, Profile& profile, const BenchmarkOptions& options,
                  const std::function<void(const BenchmarkRun&)>& done) {
  for (const int64_t length : options.prefill) CheckLength(model.config(), length);
  for (const int64_t depth : options.depths) {
    CheckLength(model.config(), depth + (options.repeat + 1) * options.steps);
  }
  for (const int64_t length : options.prefill) {
    BenchmarkRun run = BenchmarkPrefill(model, profile, length, options);
    run.planned_tokens_per_s = PlannedSpeed(model, run);
    done(run);
  }
  for (const int64_t depth : options.depths) {
    for (const int64_t batch : options.batches) {
      BenchmarkRun run = BenchmarkDecode(model, profile, depth, batch, options);
      run.planned_tokens_per_s = PlannedSpeed(model, run);
      done(run);
    }
  }
}

}  // namespace toaster
