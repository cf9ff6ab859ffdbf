#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "base/disk_speed.h"
#include "base/error.h"
#include "base/memory_use.h"
#include "base/units.h"
#include "engine/memory_plan.h"
#include "engine/speed_estimate.h"
#include "model/cache_size.h"

namespace toaster {
namespace {

using Json = nlohmann::ordered_json;

// Prompts whose first token is predicted, and depths whose decoding is.
constexpr int64_t kPrompts[] = {512, 4096, 32768};
constexpr double kHoursPerDay = 8;  // of use, for what is read and written in a day

struct Options {
  EngineOptions engine;
  std::string preset;
  int64_t parallel = 1;
  double disk = 0, read = 0, bf16 = 0;  // GB/s, GB/s, GFLOP/s; 0: measured
  bool json = false;
};

struct Plan {
  std::string model;
  WeightSizes sizes;
  MemoryPlan memory;
  SpeedLimits limits;
  std::vector<std::pair<int64_t, SpeedEstimate>> prompts;  // by length
  SpeedEstimate decode;                                    // at the whole context
};

Plan MakePlan(const Options& options) {
  if (!options.preset.empty() && !options.engine.model.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "plan takes either a model or --preset");
  }
  Plan plan;
  std::optional<LoadedModel> loaded;
  Config config;
  bool in_files = true;
  if (options.preset.empty()) {
    loaded.emplace(OpenModel(options.engine.model));
    config = loaded->config;
    in_files = !loaded->checkpoint.ShardPaths().empty();
    plan.sizes = in_files ? SizesOf(*loaded) : SizesOf(config);
    plan.model = options.engine.model.empty() ? "built-in model" : options.engine.model;
  } else {
    config = Config::Preset(options.preset);
    plan.sizes = SizesOf(config);
    plan.model = options.preset;
  }
  plan.memory = PlanMemory(config, plan.sizes,
                           {.memory = options.engine.memory,
                            .available = AvailableMemory(),
                            .context = options.engine.context,
                            .sequences = options.parallel,
                            .prefix_bytes = 0,
                            .chunk = options.engine.chunk,
                            .in_files = in_files});
  if (options.read <= 0 || options.bf16 <= 0)
    plan.limits.machine = CreateBackend(options.engine.backend)->MeasureLimits();
  if (options.read > 0) plan.limits.machine.read_bytes_per_s = 1e9 * options.read;
  if (options.bf16 > 0) plan.limits.machine.bf16_flops_per_s = 1e9 * options.bf16;
  if (options.disk > 0) {
    plan.limits.disk_bytes_per_s = 1e9 * options.disk;
  } else if (loaded && plan.memory.streams) {
    plan.limits.disk_bytes_per_s = DirectReadRate(loaded->checkpoint.ShardPaths()).value_or(0);
  }
  for (const int64_t prompt : kPrompts) {
    if (prompt > plan.memory.context && prompt != kPrompts[0]) continue;
    plan.prompts.emplace_back(prompt, EstimateSpeed(config, plan.sizes, plan.memory, plan.limits,
                                                    {.depth = prompt, .prompt = prompt}));
  }
  plan.decode =
      EstimateSpeed(config, plan.sizes, plan.memory, plan.limits, {.depth = plan.memory.context});
  return plan;
}

std::string Bytes(int64_t bytes) { return BytesText(static_cast<double>(bytes)); }

std::string RateText(double rate, const char* unit) {
  return rate > 0 ? fmt::format("{:.1f} {}", rate / 1e9, unit) : std::string("not known");
}

std::string SecondsText(double seconds) {
  if (seconds <= 0) return "not known";
  return seconds < 120 ? fmt::format("{:.1f} s", seconds) : fmt::format("{:.0f} min", seconds / 60);
}

// SSD traffic of a day of steady decoding.
double DailyReads(const SpeedEstimate& estimate) {
  return estimate.disk_bytes_per_token * estimate.decode_tokens_per_s * 3600 * kHoursPerDay;
}

std::string PlanText(const Plan& plan) {
  const MemoryPlan& memory = plan.memory;
  std::string text = fmt::format("{}: {} of weights\n\n", plan.model, Bytes(plan.sizes.total()));
  const auto line = [&](const char* name, int64_t bytes, const std::string& remark) {
    text += fmt::format("  {:<22} {:>10}  {}\n", name, Bytes(bytes), remark);
  };
  line("dense weights", memory.dense_bytes, "everything but routed experts and the embedding");
  line("embedding", memory.embedding_bytes,
       fmt::format("rows that texts use, of {}", Bytes(plan.sizes.embedding_bytes)));
  line("experts", memory.expert_bytes,
       fmt::format("{} of {}{}", GroupedText(memory.experts_kept), GroupedText(plan.sizes.experts),
                   memory.streams ? ", the others are read from the files when needed" : ""));
  line("cache", memory.cache_bytes,
       fmt::format("{} x {} tokens", memory.sequences, GroupedText(memory.context)));
  line("activations", memory.workspace_bytes,
       fmt::format("{} tokens per forward pass of a prefill", GroupedText(memory.chunk)));
  line("program", MemoryPlan::kProgramBytes, "");
  line("together", memory.total(),
       memory.memory > 0 ? fmt::format("of {}", Bytes(memory.memory)) : "");
  text += fmt::format("\nthis machine: memory {}, BF16 {}, disk {}\n",
                      RateText(plan.limits.machine.read_bytes_per_s, "GB/s"),
                      RateText(plan.limits.machine.bf16_flops_per_s, "GFLOP/s"),
                      RateText(plan.limits.disk_bytes_per_s, "GB/s"));
  text += fmt::format("\n  {:>10} {:>16} {:>14} {:>16}\n", "prompt", "first token", "prefill",
                      "then decode");
  for (const auto& [prompt, speed] : plan.prompts) {
    text += fmt::format("  {:>10} {:>16} {:>10.1f} t/s {:>12.2f} t/s\n", GroupedText(prompt),
                        SecondsText(speed.first_token_seconds), speed.prefill_tokens_per_s,
                        speed.decode_tokens_per_s);
  }
  if (memory.streams) {
    text += fmt::format(
        "\nA decoded token reads {} of experts from disk if all experts are used equally often; "
        "text does not, so expect less.\n{:.0f} hours of decoding a day read {} and write nothing; "
        "the prefix store (--cache-dir) writes {} per 1,000 tokens it keeps.\n",
        BytesText(plan.decode.disk_bytes_per_token), kHoursPerDay,
        BytesText(DailyReads(plan.decode)),
        BytesText(1000.0 * static_cast<double>(memory.cache_bytes) /
                  static_cast<double>(memory.sequences * memory.context)));
  }
  return text;
}

Json PlanJson(const Plan& plan) {
  const MemoryPlan& memory = plan.memory;
  Json prompts = Json::array();
  for (const auto& [prompt, speed] : plan.prompts) {
    prompts.push_back({{"tokens", prompt},
                       {"first_token_s", speed.first_token_seconds},
                       {"prefill_tokens_per_s", speed.prefill_tokens_per_s},
                       {"decode_tokens_per_s", speed.decode_tokens_per_s},
                       {"disk_bytes", speed.prefill_disk_bytes}});
  }
  return {{"model", plan.model},
          {"weight_bytes", plan.sizes.total()},
          {"memory_bytes", memory.memory},
          {"planned_bytes", memory.total()},
          {"streams", memory.streams},
          {"dense_bytes", memory.dense_bytes},
          {"embedding_bytes", memory.embedding_bytes},
          {"expert_bytes", memory.expert_bytes},
          {"experts", plan.sizes.experts},
          {"experts_kept", memory.experts_kept},
          {"cache_bytes", memory.cache_bytes},
          {"context", memory.context},
          {"sequences", memory.sequences},
          {"workspace_bytes", memory.workspace_bytes},
          {"chunk", memory.chunk},
          {"limits",
           {{"read_gb_per_s", plan.limits.machine.read_bytes_per_s / 1e9},
            {"bf16_gflop_per_s", plan.limits.machine.bf16_flops_per_s / 1e9},
            {"disk_gb_per_s", plan.limits.disk_bytes_per_s / 1e9}}},
          {"prompts", prompts},
          {"decode_tokens_per_s", plan.decode.decode_tokens_per_s},
          {"decode_disk_bytes_per_token", plan.decode.disk_bytes_per_token},
          {"disk_read_bytes_per_day", DailyReads(plan.decode)}};
}

}  // namespace

void AddPlanCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "plan", "Say how a model's memory will be split here, what is read from disk, and how fast");
  auto options = std::make_shared<Options>();
  AddEngineOptions(*command, options->engine);
  command
      ->add_option("--preset", options->preset,
                   "A released model that need not be there: v4-flash, v4-pro, ...")
      ->envname("TOASTER_PRESET");
  command->add_option("--parallel", options->parallel, "Sequences at a time")
      ->envname("TOASTER_PARALLEL")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  const CLI::Range rates(1e-3, 1e9);
  command
      ->add_option("--disk", options->disk,
                   "GB/s of the disk that experts are read from (default: measured on the model)")
      ->envname("TOASTER_DISK")
      ->check(rates);
  command->add_option("--read", options->read, "GB/s of reading memory (default: measured)")
      ->envname("TOASTER_READ")
      ->check(rates);
  command->add_option("--bf16", options->bf16, "GFLOP/s in BF16 (default: measured)")
      ->envname("TOASTER_BF16")
      ->check(rates);
  command->add_flag("--json", options->json, "Print JSON")->envname("TOASTER_JSON");
  command->callback([options, &exit_code] {
    const Plan plan = MakePlan(*options);
    fmt::print("{}", options->json ? PlanJson(plan).dump(2) + "\n" : PlanText(plan));
    exit_code = 0;
  });
}

}  // namespace toaster
