#pragma once

// What `toaster bench` says: for people, as JSON, as CSV.

#include <optional>
#include <string>
#include <vector>

#include "engine/benchmark.h"

namespace toaster {

struct BenchReport {
  std::string model;     ///< where it was found
  std::string backend;   ///< kernels and threads
  MachineLimits limits;  ///< medians over the runs; each run has its own beside it
  std::optional<double> disk_bytes_per_s;
  double open_seconds = 0;
  int64_t peak_resident_bytes = 0;
  MemoryPlan plan;
  std::optional<ExpertStoreFigures> experts;  ///< of all runs, if experts are read when needed
  std::vector<BenchmarkRun> runs;
};

std::string LimitsText(const BenchReport& report);
/// One line, without its end; HeaderText() is the line above them.
std::string HeaderText();
std::string RunText(const BenchmarkRun& run);
/// Each operation of a run: its share of the time, and of what the machine allows it.
std::string ProfileText(const BenchmarkRun& run);

/// Peak memory, and what became of the plan: two or three lines.
std::string MemoryText(const BenchReport& report);

/// Rates in 10^9 per second; null where not known. Runs carry the limits of their time and their
/// profile with `profile`.
std::string ReportJson(const BenchReport& report, bool profile);
/// A header and a line per run.
std::string ReportCsv(const BenchReport& report);

}  // namespace toaster
