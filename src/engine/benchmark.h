#pragma once

// Measuring a model: prefills and decode steps as rates and as shares of what the machine allows.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/profile.h"
#include "engine/running_model.h"

namespace toaster {

struct BenchmarkOptions {
  std::vector<int64_t> prefill = {512};  ///< lengths of prompts
  std::vector<int64_t> depths = {0};     ///< decode: tokens in the cache before the first step
  std::vector<int64_t> batches = {1};    ///< decode: sequences per step; every depth with each
  int64_t repeat = 5;                    ///< measurements of each; the median counts
  int64_t steps = 16;                    ///< decode steps in a measurement
  int64_t chunk = 512;                   ///< tokens per forward pass of a prefill
  uint64_t seed = 0;                     ///< of the tokens, if they are random
  std::vector<int32_t> tokens;           ///< fed in turn, around and around; empty: random ones
};

/// One line of results.
struct BenchmarkRun {
  std::string kind;    ///< "prefill" or "decode"
  int64_t tokens = 0;  ///< computed in a measurement, of all sequences together
  int64_t depth = 0;
  int64_t batch = 1;
  double seconds = 0;  ///< median of a measurement
  double least_seconds = 0, most_seconds = 0;
  Work work;                    ///< of the median measurement
  double disk_bytes = 0;        ///< of experts that it used and that were not in memory
  double disk_bytes_per_s = 0;  ///< that the disk gave meanwhile; 0 where no experts are read
  Profile profile;              ///< of all measurements together
  /// What the machine allowed meanwhile: medians of what was measured between the measurements.
  MachineLimits limits;
  /// What EstimateSpeed() makes of these limits, as `toaster plan` would have said; 0: no estimate
  /// (several sequences, or limits not known).
  double planned_tokens_per_s = 0;
  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
  double DiskSeconds() const { return disk_bytes_per_s > 0 ? disk_bytes / disk_bytes_per_s : 0; }
  /// The share of the speed that memory, arithmetic and the disk allow; 0 where limits are not
  /// known.
  double ShareOfLimit() const {
    return std::max(work.LeastSeconds(limits), DiskSeconds()) / seconds;
  }
  /// "read", "compute" or "disk": which of them binds.
  const char* Limit() const {
    if (DiskSeconds() > work.LeastSeconds(limits)) return "disk";
    return work.MemorySeconds(limits) >= work.ComputeSeconds(limits) ? "read" : "compute";
  }
};

/// Fills an empty cache as if `length` tokens had been computed, with random entries: their numbers
/// cost as much to attend to as any.
void FillCache(SequenceCache& cache, const Config& config, const Backend& backend, int64_t length,
               uint64_t seed);

/// The median of each limit.
MachineLimits MedianLimits(std::span<const MachineLimits> limits);

/// Measures everything `options` asks for with `model`, whose backend writes to `profile`; `done`
/// is told each run as it ends. The first measurement of each run is not counted. Before each one
/// the backend's limits are measured, because what a shared machine allows changes from one minute
/// to the next. Throws Error(kInvalidArgument) for what exceeds the model's limit.
void RunBenchmark(RunningModel& model, Profile& profile, const BenchmarkOptions& options,
                  const std::function<void(const BenchmarkRun&)>& done);

}  // namespace toaster
