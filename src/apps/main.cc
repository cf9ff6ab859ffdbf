#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>

#include "apps/commands.h"

namespace {

int Run(int argc, char** argv) {
  CLI::App app("Toaster runs DeepSeek V4 models on the machine you have.", "toaster");
  app.require_subcommand(1);
  int exit_code = 0;
  toaster::AddRunCommand(app, exit_code);
  toaster::AddServeCommand(app, exit_code);
  toaster::AddKeyCommand(app, exit_code);
  toaster::AddDoctorCommand(app, exit_code);
  toaster::AddStatsCommand(app, exit_code);
  toaster::AddCacheCommand(app, exit_code);
  toaster::AddLogitsCommand(app, exit_code);
  toaster::AddRecordCommand(app, exit_code);
  toaster::AddTokenizeCommand(app, exit_code);
  toaster::AddDetokenizeCommand(app, exit_code);
  toaster::AddInspectCommand(app, exit_code);
  toaster::AddVerifyCommand(app, exit_code);
  toaster::AddSynthCommand(app, exit_code);
  toaster::AddEvalCommand(app, exit_code);
  toaster::AddTrainTokenizerCommand(app, exit_code);
  toaster::AddRenderCommand(app, exit_code);
  toaster::AddBenchCommand(app, exit_code);
  toaster::AddPlanCommand(app, exit_code);
  toaster::AddTrainCommand(app, exit_code);
  toaster::AddPlotCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "toaster: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "toaster: %s\n", error.what());
  }
  return 1;
}
