#include "checkpoint/verify.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "apps/commands.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "checkpoint/model_location.h"

namespace toaster {
namespace {

struct Options {
  std::string model;
  int threads = 0;
};

// 0 for a sound checkpoint, 1 otherwise.
int Verify(const Options& options) {
  const std::filesystem::path directory = FindModel(options.model);
  ThreadPool pool(options.threads > 0 ? options.threads : UsableProcessors());
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto start = std::chrono::steady_clock::now();
  int64_t shown = -1;
  const VerifyReport report = VerifyCheckpoint(directory, pool, [&](int64_t read, int64_t total) {
    if (!terminal || read * 100 / total == shown) return;
    shown = read * 100 / total;
    fmt::print(stderr, "\r{} of {} ({} %)  ", BytesText(static_cast<double>(read)),
               BytesText(static_cast<double>(total)), shown);
  });
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (const std::string& defect : report.defects) fmt::print("{}\n", defect);
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
  fmt::print("{}: {}; {} tensors, {} in {} file{} read in {:.1f} s\n", directory.string(),
             report.defects.empty() ? "sound"
             : report.defects.size() == 1
                 ? "1 problem"
                 : GroupedText(static_cast<int64_t>(report.defects.size())) + " problems",
             GroupedText(report.tensors), BytesText(static_cast<double>(report.bytes)),
             report.files, report.files == 1 ? "" : "s", seconds.count());
  return report.defects.empty() ? 0 : 1;
}

}  // namespace

void AddVerifyCommand(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("verify", "Read all of a model and name everything that is wrong with it");
  command
      ->add_option("MODEL", options->model,
                   "A checkpoint's directory, or org/name in the Hugging Face cache")
      ->required();
  command->add_option("--threads", options->threads, "Threads (all processors)")
      ->envname("TOASTER_THREADS")
      ->check(CLI::Range(1, 1024));
  command->callback([options, &exit_code] { exit_code = Verify(*options); });
}

}  // namespace toaster
