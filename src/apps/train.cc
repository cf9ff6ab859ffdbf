#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>

#include "apps/commands.h"
#include "apps/interrupt.h"
#include "base/error.h"
#include "base/units.h"
#include "train/trainer.h"
#include "train/training_log.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string config;
  BackendOptions backend;
};

// What the user sees of a run: a line that is written over on a terminal, one in a while elsewhere.
class ProgressLine {
 public:
  ProgressLine(int64_t steps, double peak_flops_per_s, double flops_per_token)
      : steps_(steps), peak_(peak_flops_per_s), flops_per_token_(flops_per_token) {}

  void Show(const StepReport& report) {
    tokens_ += report.tokens;
    seconds_ += report.seconds;
    ++done_;
    if (report.validation) validation_ = fmt::format(", validation {:.4f}", *report.validation);
    const auto now = std::chrono::steady_clock::now();
    const bool last = report.step == steps_;
    const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(10);
    if (!last && now - shown_ < pause) return;
    shown_ = now;
    const double rate = static_cast<double>(tokens_) / seconds_;
    const double left =
        seconds_ / static_cast<double>(done_) * static_cast<double>(steps_ - report.step);
    const std::string share =
        peak_ > 0 ? fmt::format(" ({:.0f} % of peak)", 100 * rate * flops_per_token_ / peak_) : "";
    const std::string line =
        fmt::format("step {}/{}: loss {:.4f}{}, {:.0f} tokens/s{}, {:%H:%M:%S} left", report.step,
                    steps_, report.losses.ce, validation_, rate, share,
                    std::chrono::seconds(static_cast<int64_t>(left)));
    std::fprintf(stderr, terminal_ ? "\r\33[K%s" : "%s\n", line.c_str());
    open_ = terminal_;
    if (last) End();
  }
  void Note(const std::string& note) {
    End();
    std::fprintf(stderr, "toaster: %s\n", note.c_str());
  }
  void End() {
    if (open_) std::fputc('\n', stderr);
    open_ = false;
  }

 private:
  const int64_t steps_;
  const double peak_, flops_per_token_;
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  bool open_ = false;
  int64_t tokens_ = 0, done_ = 0;
  double seconds_ = 0;
  std::string validation_;
  std::chrono::steady_clock::time_point shown_;
};

// Keeps a second process out of the run's folder while it lives.
class RunLock {
 public:
  explicit RunLock(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    descriptor_ = open((folder / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) {
      throw Error(ErrorCode::kIo, fmt::format("{}: cannot be written to: {}", folder.string(),
                                              std::strerror(errno)));
    }
    if (flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    close(descriptor_);
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: another process trains there; stop it or choose another output",
                            folder.string()));
  }
  ~RunLock() { close(descriptor_); }
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

// False if the run was stopped.
bool Train(const Options& options) {
  const InterruptScope interrupt(InterruptScope::Second::kKills);
  const TrainingConfig config = TrainingConfig::Load(options.config);
  const RunLock lock(config.output);
  const fs::path companions = config.tokenizer.empty() ? config.init : config.tokenizer;
  const Tokenizer tokenizer = companions.empty()
                                  ? Tokenizer::Bytes(config.model.vocab_size)
                                  : Tokenizer::ForModel(companions, config.model.vocab_size);
  if (tokenizer.vocab_size() > config.model.vocab_size) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} has {} tokens, the model's vocab_size is {}; they have to fit",
                            tokenizer.origin(), tokenizer.vocab_size(), config.model.vocab_size));
  }
  const PromptTexts texts = companions.empty() ? PromptTexts("a run without a tokenizer folder")
                                               : PromptTexts::Load(companions);
  const auto read = [&](const std::vector<fs::path>& paths) {
    return TrainingData::Read(paths, tokenizer, texts, config.sequence_tokens,
                              [](int64_t, int64_t) { return !InterruptScope::Raised(); });
  };
  TrainingData data = read(config.data);
  const TrainingData validation =
      config.validation.empty() ? data.SetAside(config.validation_share) : read(config.validation);
  std::fprintf(stderr, "%s\n",
               fmt::format("{} tokens in {} documents to learn from, {} in {} to validate with",
                           GroupedText(data.tokens()), GroupedText(data.documents()),
                           GroupedText(validation.tokens()), GroupedText(validation.documents()))
                   .c_str());
  const MachineLimits limits = CreateBackend(options.backend)->MeasureLimits();
  ProgressLine line(config.steps(), limits.bf16_flops_per_s, TrainingFlopsPerToken(config.model));
  std::unique_ptr<TrainingLog> log;
  Trainer trainer(
      config, data, validation, options.backend,
      {[&](const StepReport& report) {
         log->Append(report);
         line.Show(report);
       },
       [&](const std::string& note) { line.Note(note); }, [] { return InterruptScope::Raised(); }});
  log = std::make_unique<TrainingLog>(config.output / "log.jsonl", trainer.step());
  if (!trainer.Run()) {
    line.Note(
        fmt::format("stopped after step {}; the same command goes on from there", trainer.step()));
    return false;
  }
  trainer.Export(companions, config.output / "model");
  std::printf("%s\n", (config.output / "model").c_str());
  return true;
}

}  // namespace

void AddTrainCommand(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "train",
      "Train a model as a configuration says (docs/formats/training.md); the same command goes on "
      "where a run was stopped. Prints the folder of the finished model");
  command->add_option("config", options->config, "The configuration, a JSON file")
      ->envname("TOASTER_CONFIG")
      ->required();
  command->add_option("--threads", options->backend.threads, "Threads (0: every processor)")
      ->envname("TOASTER_THREADS")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command
      ->add_option("--kernels", options->backend.kernels,
                   "Kernel table: portable, avx2 or avx512 (default: the fastest here)")
      ->envname("TOASTER_KERNELS");
  command->callback([options, &exit_code] { exit_code = Train(*options) ? 0 : 130; });
}

}  // namespace toaster
