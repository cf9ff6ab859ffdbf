#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "apps/bench_report.h"
#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/text_input.h"
#include "base/disk_speed.h"
#include "base/memory_use.h"
#include "engine/benchmark.h"

namespace toaster {
namespace {

// What measuring the machine takes, see Backend::MeasureLimits() and DirectReadRate().
constexpr int64_t kMeasureBytes = (int64_t{1} << 30) + (int64_t{64} << 20);

struct Options {
  EngineOptions engine;
  BenchmarkOptions benchmark;
  bool json = false;
  bool csv = false;
  bool profile = false;
  std::string token_file;
};

void Bench(Options& options) {
  Profile profile;
  options.engine.backend.profile = &profile;
  options.engine.other_bytes = kMeasureBytes;
  if (!options.engine.history) options.engine.history.emplace();  // each run begins alike
  options.engine.sequences =
      *std::max_element(options.benchmark.batches.begin(), options.benchmark.batches.end());
  if (options.engine.context == 0) {
    options.engine.context = std::max(
        *std::max_element(options.benchmark.prefill.begin(), options.benchmark.prefill.end()),
        *std::max_element(options.benchmark.depths.begin(), options.benchmark.depths.end()) +
            (options.benchmark.repeat + 1) * options.benchmark.steps);
  }
  const bool quiet = options.json || options.csv;

  BenchReport report;
  report.model = options.engine.model.empty() ? "built-in model" : options.engine.model;
  const auto start = std::chrono::steady_clock::now();
  const auto running = StartModel(options.engine);
  report.open_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.backend = running->backend().name();
  options.benchmark.chunk = running->plan().chunk;
  if (!options.token_file.empty())
    options.benchmark.tokens = ParseTokenIds(ReadInput(options.token_file));
  report.disk_bytes_per_s = DirectReadRate(running->loaded().checkpoint.ShardPaths());
  report.limits = running->backend().MeasureLimits();
  if (!quiet) {
    fmt::print("{}{}\n", LimitsText(report), HeaderText());
    std::fflush(stdout);
  }
  RunBenchmark(*running, profile, options.benchmark, [&](const BenchmarkRun& run) {
    report.runs.push_back(run);
    // Figures come in as they are made; what a program reads is printed whole at the end.
    fmt::print(quiet ? stderr : stdout, "{}\n", RunText(run));
    if (options.profile && !quiet) fmt::print("{}", ProfileText(run));
    std::fflush(stdout);
  });
  std::vector<MachineLimits> limits;
  for (const BenchmarkRun& run : report.runs) limits.push_back(run.limits);
  if (!limits.empty()) report.limits = MedianLimits(limits);
  report.peak_resident_bytes = CurrentMemoryUse().peak;
  report.plan = running->plan();
  if (running->expert_store() != nullptr) report.experts = running->expert_store()->figures();
  if (options.json) fmt::print("{}", ReportJson(report, options.profile));
  if (options.csv) fmt::print("{}", ReportCsv(report));
  if (!quiet) {
    fmt::print("{}", MemoryText(report));
  }
}

}  // namespace

void AddBenchCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "bench",
      "Measure this machine, then prefill and decode of a model, as rates and as shares of what "
      "the machine allows");
  auto options = std::make_shared<Options>();
  BenchmarkOptions& benchmark = options->benchmark;
  AddEngineOptions(*command, options->engine);
  AddNumericsOption(*command, options->engine);
  const CLI::Range counts(int64_t{1}, int64_t{1} << 30);
  const CLI::Range depths(int64_t{0}, int64_t{1} << 30);
  command->add_option("--prefill", benchmark.prefill, "Prompt lengths, with commas between")
      ->envname("TOASTER_PREFILL")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command
      ->add_option("--depth", benchmark.depths,
                   "Decode: tokens in the cache before the first step, with commas between")
      ->envname("TOASTER_DEPTH")
      ->delimiter(',')
      ->check(depths)
      ->capture_default_str();
  command
      ->add_option("--batch", benchmark.batches,
                   "Decode: sequences that step together; every depth is measured with each")
      ->envname("TOASTER_BATCH")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command->add_option("--repeat", benchmark.repeat, "Measurements of each; the median is reported")
      ->envname("TOASTER_REPEAT")
      ->check(counts)
      ->capture_default_str();
  command->add_option("--steps", benchmark.steps, "Decode steps in one measurement")
      ->envname("TOASTER_STEPS")
      ->check(counts)
      ->capture_default_str();
  command->add_option("--seed", benchmark.seed, "Seed of the random tokens")
      ->envname("TOASTER_SEED")
      ->capture_default_str();
  command
      ->add_option("--token-file", options->token_file,
                   "File of token ids to feed instead, around and around: text chooses experts "
                   "less evenly than chance")
      ->envname("TOASTER_TOKEN_FILE");
  command
      ->add_flag("--profile", options->profile,
                 "Also print time, bytes and share of the limit of each operation")
      ->envname("TOASTER_PROFILE");
  CLI::Option* json =
      command->add_flag("--json", options->json, "Print JSON")->envname("TOASTER_JSON");
  command->add_flag("--csv", options->csv, "Print CSV")->envname("TOASTER_CSV")->excludes(json);
  command->callback([options, &exit_code] {
    Bench(*options);
    exit_code = 0;
  });
}

}  // namespace toaster
