#pragma once

// What every command that computes has in common: which model, which backend, how many threads.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chat/prompt_texts.h"
#include "engine/running_model.h"
#include "tokenizer/tokenizer.h"

namespace CLI {
class App;
}

namespace toaster {

struct EngineOptions {
  std::string model;  ///< empty: the built-in model
  BackendOptions backend;
  std::string numerics = "official";
  int64_t chunk = 0;  ///< 0: see ChunkOf
};

/// Declares MODEL, --backend, --kernels, --threads and --chunk.
void AddEngineOptions(CLI::App& command, EngineOptions& options);
/// Declares --numerics.
void AddNumericsOption(CLI::App& command, EngineOptions& options);

/// Tokens per forward pass of a prefill: as asked for, or what suits the model and this machine.
int64_t ChunkOf(const EngineOptions& options, const Config& config);

/// Finds and opens the model. Throws Error.
LoadedModel OpenModel(const std::string& model);
/// Opens the model and makes it ready to run; what a user should know about it goes to standard
/// error.
std::unique_ptr<RunningModel> StartModel(const EngineOptions& options);

/// The tokenizer and the fixed texts of prompts that belong to the model that `options` opened.
Tokenizer ModelTokenizer(const EngineOptions& options, const LoadedModel& loaded);
PromptTexts ModelPromptTexts(const EngineOptions& options, const LoadedModel& loaded);

/// Token ids as a user writes them: numbers with blanks or commas between. Throws
/// Error(kInvalidArgument).
std::vector<int32_t> ParseTokenIds(std::string_view text);

/// Prints "digest" and 32 hexadecimal digits, as the last line of standard output.
void PrintDigest(const std::string& hex);

}  // namespace toaster
