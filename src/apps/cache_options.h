#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/prefix_store.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace toaster {

/// The prefix store as a user asks for it.
struct CacheOptions {
  std::string directory;  ///< empty: none
  int64_t size = 32'000'000'000;
  int64_t daily_writes = 64'000'000'000;
  int64_t least_tokens = 256;
};

/// Declares --cache-dir, --cache-size, --cache-daily-writes and --cache-least-tokens.
void AddCacheOptions(CLI::App& command, CacheOptions& options);
/// Declares --cache-dir alone.
CLI::Option* AddCacheDirectoryOption(CLI::App& command, CacheOptions& options);
/// Declares --cache-size alone.
void AddCacheSizeOption(CLI::App& command, CacheOptions& options);

PrefixStoreOptions StoreOptionsOf(const CacheOptions& options,
                                  std::function<void(const std::string&)> note);
/// The store, or null if none is asked for. The model is borrowed.
std::unique_ptr<PrefixStore> OpenStore(const CacheOptions& options, RunningModel& running,
                                       std::function<void(const std::string&)> note);

}  // namespace toaster
