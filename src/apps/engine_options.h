#pragma once

// What every command that computes has in common: which model, which backend, how many threads.

#include <cstdint>
#include <memory>
#include <optional>
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
  int64_t chunk = 0;                ///< 0: what suits the model and the memory
  int64_t memory = 0;               ///< bytes; 0: what is available
  int64_t context = 0;              ///< tokens that memory is set aside for; 0: the plan's choice
  std::vector<std::string> copies;  ///< of the model, on other disks
  /// Directory of counts of experts; not given: the user's cache, empty: none.
  std::optional<std::string> history;
  // A server's: sequences at a time, and memory for beginnings of requests, -1: the plan's choice.
  int64_t sequences = 1, prefix_bytes = 0;
  int64_t other_bytes = 0;  ///< that the command takes besides
};

/// Declares MODEL, --backend, --kernels, --threads, --chunk, --memory, --context, --model-copy and
/// --expert-history.
void AddEngineOptions(CLI::App& command, EngineOptions& options);
/// Declares --numerics.
void AddNumericsOption(CLI::App& command, EngineOptions& options);

/// Finds and opens the model. Throws Error.
LoadedModel OpenModel(const std::string& model);
/// Opens the model, splits the memory and makes it ready to run; what a user should know about it
/// goes to standard error. Throws Error.
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
