#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "apps/cache_options.h"
#include "apps/engine_options.h"
#include "apps/generate.h"

namespace toaster {

/// What `toaster run` is told.
struct RunOptions {
  EngineOptions engine;
  CacheOptions cache;
  std::string prompt;
  std::string file;
  std::string tokens;
  bool chat = false;
  std::string system;
  std::string think;  ///< off, on, low, high or max; empty: on
  bool fold = false;
  GenerateOptions generate;
  std::vector<std::string> stop;
  std::vector<std::string> logit_bias;
  int64_t seed = -1;
  bool no_bos = false;
  bool quiet = false;
  bool digest = false;
};

/// Declares the flags; `options` has to outlive the parsing.
void AddRunOptions(CLI::App& command, RunOptions& options);

/// TOKEN:BIAS items. Throws Error(kInvalidArgument) naming the item.
std::map<int32_t, float> ParseLogitBias(const std::vector<std::string>& items);

}  // namespace toaster
