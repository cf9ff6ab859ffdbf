#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/model_summary.h"
#include "checkpoint/load_weights.h"

namespace toaster {
namespace {

struct Options {
  std::string model;
  std::string preset;
  bool json = false;
};

ModelSummary Summarise(const Options& options) {
  return options.preset.empty() ? ModelSummary::Of(OpenModel(options.model))
                                : ModelSummary::Of(Config::Preset(options.preset));
}

}  // namespace

void AddInspectCommand(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "Describe a model: layers, parameters, bytes, cache");
  CLI::Option* model = command->add_option("MODEL", options->model,
                                           "A checkpoint's directory, or org/name in the Hugging "
                                           "Face cache (default: the built-in model)");
  command
      ->add_option("--preset", options->preset,
                   "Describe released shapes without a model: v4-flash, v4-pro or tiny")
      ->envname("TOASTER_PRESET")
      ->excludes(model);
  command->add_flag("--json", options->json, "Print JSON")->envname("TOASTER_JSON");
  command->callback([options, &exit_code] {
    const ModelSummary summary = Summarise(*options);
    const std::string text =
        options->json ? SummaryJson(summary).dump(2) + "\n" : SummaryText(summary);
    std::fwrite(text.data(), 1, text.size(), stdout);
    exit_code = 0;
  });
}

}  // namespace toaster
