#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <filesystem>
#include <memory>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/text_input.h"
#include "base/digest.h"
#include "checkpoint/save_weights.h"
#include "engine/record_runs.h"

namespace toaster {
namespace {

struct Options {
  EngineOptions engine;
  std::string runs;
  std::string inputs;
  std::string output;
  bool digest = false;
};

void Save(const std::filesystem::path& path, const RecordedTensors& tensors) {
  std::vector<PlannedTensor> plan;
  for (const auto& [name, tensor] : tensors) {
    plan.push_back({name, tensor.is_integer ? StoredType::kI32 : StoredType::kF32, tensor.shape});
  }
  const auto source = [&](const PlannedTensor& planned, int64_t offset, std::span<std::byte> out) {
    const RecordedTensor& tensor = tensors.at(planned.name);
    const auto* data = tensor.is_integer
                           ? reinterpret_cast<const std::byte*>(tensor.integers.data())
                           : reinterpret_cast<const std::byte*>(tensor.floats.data());
    std::memcpy(out.data(), data + offset, out.size());
  };
  ThreadPool pool(1);
  SaveSafetensors(path, plan, source, pool);
}

void Record(const Options& options) {
  const LoadedModel loaded = OpenModel(options.engine.model);
  const RunList runs = RunList::Parse(ReadInput(options.runs), options.runs);
  const std::filesystem::path inputs_path =
      options.inputs.empty() ? std::filesystem::path(options.runs).replace_extension(".safetensors")
                             : std::filesystem::path(options.inputs);
  const SafetensorsFile inputs(inputs_path);
  RecordedTensors all;
  for (const Numerics numerics : {Numerics::kOfficial, Numerics::kFloat32}) {
    BackendOptions backend = options.engine.backend;
    backend.numerics = numerics;
    all.merge(
        RecordRuns(loaded.config, loaded.weights, backend, runs, inputs, options.engine.chunk));
  }
  Save(options.output, all);
  fmt::print("wrote {} tensors to {}\n", all.size(), options.output);
  if (!options.digest) return;
  Digest digest;
  for (const auto& [name, tensor] : all) {
    digest.AddValues(std::span<const char>(name));
    digest.AddValues(std::span<const float>(tensor.floats));
    digest.AddValues(std::span<const int32_t>(tensor.integers));
  }
  PrintDigest(digest.Hex());
}

}  // namespace

void AddRecordCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "record",
      "Execute a recorded set's run list in both numerics and write every tensor it names");
  auto options = std::make_shared<Options>();
  AddEngineOptions(*command, options->engine);
  command->get_option("--chunk")->description(
      "Tokens per forward pass; changes no answer (default: all of a run)");
  command->add_option("--runs", options->runs, "The set's golden.json; its \"runs\" are executed")
      ->required()
      ->envname("TOASTER_RUNS");
  command
      ->add_option("--inputs", options->inputs,
                   "Tokens and inputs of single steps (default: the file beside --runs that ends "
                   "in .safetensors)")
      ->envname("TOASTER_INPUTS");
  command->add_option("-o,--output", options->output, "The safetensors file to write")
      ->required()
      ->envname("TOASTER_OUTPUT");
  command
      ->add_flag("--digest", options->digest,
                 "Print a digest of everything written, as the last line")
      ->envname("TOASTER_DIGEST");
  command->callback([options, &exit_code] {
    Record(*options);
    exit_code = 0;
  });
}

}  // namespace toaster
