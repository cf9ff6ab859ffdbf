#include "apps/engine_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>

#include "apps/builtin_model.h"
#include "apps/size_option.h"
#include "apps/text_input.h"
#include "apps/user_directory.h"
#include "base/error.h"
#include "base/memory_use.h"
#include "base/units.h"
#include "checkpoint/model_copy.h"
#include "checkpoint/model_location.h"
#include "engine/memory_plan.h"

namespace toaster {

namespace {

/// What messages call it.
constexpr char kBuiltin[] = "built-in model";

std::filesystem::path DefaultExpertHistory() {
  const std::filesystem::path cache = UserDirectory("XDG_CACHE_HOME", ".cache");
  return cache.empty() ? cache : cache / "experts";
}

}  // namespace

void AddEngineOptions(CLI::App& command, EngineOptions& options) {
  command
      .add_option(
          "model", options.model,
          "Model: a directory, or org/name in the Hugging Face cache (default: the built-in model)")
      ->envname("TOASTER_MODEL");
  command
      .add_option("--backend", options.backend.backend,
                  "What computes: cpu, or reference (slow and plain)")
      ->envname("TOASTER_BACKEND")
      ->check(CLI::IsMember(BackendNames()))
      ->capture_default_str();
  command
      .add_option(
          "--kernels", options.backend.kernels,
          "Kernel table of the cpu backend: portable, avx2, or avx512, which is the fastest of "
          "avx512_bf16, avx512_fma and avx512_amx (default: the fastest this processor runs)")
      ->envname("TOASTER_KERNELS");
  command
      .add_option("--threads", options.backend.threads,
                  "Threads of the cpu backend (default: every processor this process may use)")
      ->envname("TOASTER_THREADS")
      ->check(CLI::Range(0, 1024));
  command
      .add_option(
          "--chunk", options.chunk,
          "Tokens per forward pass of a prefill; changes no answer (default: 2048, or fewer "
          "where memory is short)")
      ->envname("TOASTER_CHUNK")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command
      .add_option("--memory", options.memory,
                  "Memory for everything, as 24GB; experts that do not fit are read from the files "
                  "when they are needed (default: what is available)")
      ->envname("TOASTER_MEMORY")
      ->transform(SizeText());
  command
      .add_option("--context", options.context,
                  "Tokens of each sequence that memory is set aside for (default: 32768, or the "
                  "model's limit)")
      ->envname("TOASTER_CONTEXT")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  command
      .add_option("--model-copy", options.copies,
                  "The same model's files on another disk: experts are read from both, each in "
                  "proportion to its speed; may be given more than once")
      ->envname("TOASTER_MODEL_COPY");
  command
      .add_option("--expert-history", options.history,
                  "Directory where a model that reads experts when needed remembers which it used, "
                  "so that the next start reads those first; \"\" for none (default: "
                  "~/.cache/toaster/experts)")
      ->envname("TOASTER_EXPERT_HISTORY");
}

void AddNumericsOption(CLI::App& command, EngineOptions& options) {
  command
      .add_option(
          "--numerics", options.numerics,
          "official rounds as the model was trained; fp32 rounds nothing and is for debugging")
      ->envname("TOASTER_NUMERICS")
      ->check(CLI::IsMember({"official", "fp32"}))
      ->capture_default_str();
}

LoadedModel OpenModel(const std::string& model) {
  if (model.empty())
    return LoadModel(Checkpoint::InMemory(BuiltinConfig(), BuiltinWeights(), kBuiltin));
  return LoadModel(FindModel(model));
}

std::unique_ptr<RunningModel> StartModel(const EngineOptions& options) {
  BackendOptions backend = options.backend;
  backend.numerics = options.numerics == "fp32" ? Numerics::kFloat32 : Numerics::kOfficial;
  LoadedModel loaded = OpenModel(options.model);
  for (const std::string& note : loaded.notes) fmt::print(stderr, "note: {}\n", note);
  const bool in_files = !loaded.checkpoint.ShardPaths().empty();
  const WeightSizes sizes = in_files ? SizesOf(loaded) : SizesOf(loaded.config);
  const MemoryPlan plan = PlanMemory(loaded.config, sizes,
                                     {.memory = options.memory,
                                      .available = AvailableMemory(),
                                      .context = options.context,
                                      .sequences = options.sequences,
                                      .prefix_bytes = options.prefix_bytes,
                                      .chunk = options.chunk,
                                      .other_bytes = options.other_bytes,
                                      .in_files = in_files});
  WeightOptions weights;
  weights.history =
      options.history ? std::filesystem::path(*options.history) : DefaultExpertHistory();
  weights.note = [](const std::string& note) { fmt::print(stderr, "note: {}\n", note); };
  // Also where they will not be read: a wrong path should be known at once.
  for (const std::string& copy : options.copies)
    weights.copies.push_back(FindModelCopy(loaded.checkpoint, FindModel(copy)));
  if (plan.streams) {
    fmt::print(stderr, "note: {} of {} experts stay in memory, the others are read when needed\n",
               GroupedText(plan.experts_kept), GroupedText(sizes.experts));
    const bool show = isatty(STDERR_FILENO) != 0;
    weights.progress = [show](int64_t done, int64_t total) {
      if (show) {
        fmt::print(stderr, "\r\x1b[Kreading weights: {} of {}{}",
                   BytesText(static_cast<double>(done)), BytesText(static_cast<double>(total)),
                   done == total ? "\r\x1b[K" : "");
      }
    };
  }
  return std::make_unique<RunningModel>(std::move(loaded), backend, plan, std::move(weights));
}

Tokenizer ModelTokenizer(const EngineOptions& options, const LoadedModel& loaded) {
  return options.model.empty()
             ? Tokenizer::FromJson(BuiltinTokenizer(), kBuiltin)
             : Tokenizer::ForModel(loaded.checkpoint.origin(), loaded.config.vocab_size);
}

PromptTexts ModelPromptTexts(const EngineOptions& options, const LoadedModel& loaded) {
  return options.model.empty() ? PromptTexts::FromJson(BuiltinPromptTexts(), kBuiltin)
                               : PromptTexts::Load(loaded.checkpoint.origin());
}

std::vector<int32_t> ParseTokenIds(std::string_view text) {
  constexpr std::string_view kBetween = " \t\r\n,[]";
  std::vector<int32_t> ids;
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(kBetween), text.size()));
    if (text.empty()) return ids;
    const std::string_view word = text.substr(0, text.find_first_of(kBetween));
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("\"{}\" is no token id; give numbers with blanks or commas between",
                              PrintablePiece(word.substr(0, 40))));
    }
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
}

void PrintDigest(const std::string& hex) {
  fmt::print("digest {}\n", hex);
  std::fflush(stdout);
}

}  // namespace toaster
