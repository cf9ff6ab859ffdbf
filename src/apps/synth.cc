#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "apps/commands.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "checkpoint/random_weights.h"
#include "checkpoint/save_weights.h"

namespace toaster {
namespace {

struct Options {
  std::string preset;
  std::string config_file;
  std::string out;
  std::optional<int64_t> layers;
  std::optional<int64_t> experts;
  bool no_mtp = false;
  bool single_file = false;
  bool force = false;
  uint64_t seed = 0;
  int threads = 0;
};

// Keeps the first layers, and the ratios of the draft blocks behind them.
void KeepLayers(Config& config, int64_t layers) {
  if (layers < 1 || layers > config.num_hidden_layers) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("--layers is {}; the model has 1 to {}",
                                                         layers, config.num_hidden_layers));
  }
  config.compress_ratios.erase(config.compress_ratios.begin() + layers,
                               config.compress_ratios.begin() + config.num_hidden_layers);
  config.num_hidden_layers = layers;
  config.num_hash_layers = std::min(config.num_hash_layers, layers);
}

Config BuildConfig(const Options& options) {
  if (options.preset.empty() == options.config_file.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "synth takes either --preset or --config");
  }
  Config config =
      options.preset.empty() ? Config::Load(options.config_file) : Config::Preset(options.preset);
  if (options.layers) KeepLayers(config, *options.layers);
  if (options.no_mtp) {
    config.num_nextn_predict_layers = 0;
    config.compress_ratios.resize(static_cast<size_t>(config.num_hidden_layers));
  }
  if (options.experts) {
    config.n_routed_experts = *options.experts;
    config.num_experts_per_tok = std::min(config.num_experts_per_tok, *options.experts);
  }
  const bool has_indexer =
      std::count(config.compress_ratios.begin(), config.compress_ratios.end(), 4) > 0;
  if (!has_indexer) config.index_n_heads = config.index_head_dim = config.index_topk = 0;
  config.Validate("the model to make");
  return config;
}

void CheckTarget(const Options& options) {
  std::error_code ignored;
  const std::filesystem::path out(options.out);
  if (!std::filesystem::exists(out, ignored)) return;
  if (!std::filesystem::is_directory(out, ignored)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: not a directory; choose another place", options.out));
  }
  if (!options.force && !std::filesystem::is_empty(out, ignored)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: not empty; choose another place or add --force", options.out));
  }
}

void Synthesise(const Options& options) {
  const Config config = BuildConfig(options);
  CheckTarget(options);
  const bool one_file = options.single_file || options.preset == "tiny";
  const std::vector<PlannedFile> files = one_file ? SingleFile(config) : OfficialShards(config);
  ThreadPool pool(options.threads > 0 ? options.threads : UsableProcessors());
  const RandomWeights weights(config, options.seed);

  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto start = std::chrono::steady_clock::now();
  int64_t shown = -1, bytes = 0;
  SaveCheckpoint(
      options.out, config, files,
      [&](const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) {
        weights.Fill(tensor, offset, out);
      },
      pool,
      [&](int64_t written, int64_t total) {
        bytes = total;
        if (!terminal || written * 100 / total == shown) return;
        shown = written * 100 / total;
        fmt::print(stderr, "\r{} of {} ({} %)  ", BytesText(static_cast<double>(written)),
                   BytesText(static_cast<double>(total)), shown);
      });
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print("{}: {} in {} file{}, {:.1f} s\n", options.out, BytesText(static_cast<double>(bytes)),
             files.size(), files.size() == 1 ? "" : "s", seconds.count());
}

}  // namespace

void AddSynthCommand(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "synth", "Write a checkpoint of random weights with a released model's shapes");
  command->add_option("OUT", options->out, "The directory to make")->required();
  command->add_option("--preset", options->preset, "Shapes: v4-flash, v4-pro or tiny")
      ->envname("TOASTER_PRESET");
  command->add_option("--config", options->config_file, "Shapes: those of this config.json")
      ->envname("TOASTER_CONFIG");
  command->add_option("--layers", options->layers, "Keep only the first layers")
      ->envname("TOASTER_LAYERS");
  command->add_option("--experts", options->experts, "Routed experts per layer")
      ->envname("TOASTER_EXPERTS");
  command->add_flag("--no-mtp", options->no_mtp, "Leave out the draft block")
      ->envname("TOASTER_NO_MTP");
  command
      ->add_flag("--single-file", options->single_file,
                 "One file instead of the released sharding (always so for tiny)")
      ->envname("TOASTER_SINGLE_FILE");
  command->add_option("--seed", options->seed, "Seed of the random numbers (0)")
      ->envname("TOASTER_SEED");
  command->add_option("--threads", options->threads, "Threads (all processors)")
      ->envname("TOASTER_THREADS")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--force", options->force, "Write into a directory that is not empty")
      ->envname("TOASTER_FORCE");
  command->callback([options, &exit_code] {
    Synthesise(*options);
    exit_code = 0;
  });
}

}  // namespace toaster
