#include "apps/cache_options.h"

#include <CLI/CLI.hpp>

#include "apps/size_option.h"

namespace toaster {

CLI::Option* AddCacheDirectoryOption(CLI::App& command, CacheOptions& options) {
  return command
      .add_option("--cache-dir", options.directory,
                  "Directory that keeps what was computed for prompts, so that it outlives the "
                  "program; several may share it (default: none)")
      ->envname("TOASTER_CACHE_DIR");
}

void AddCacheSizeOption(CLI::App& command, CacheOptions& options) {
  command
      .add_option("--cache-size", options.size,
                  "Most bytes in --cache-dir, as 500MB or 32GB (default: 32GB)")
      ->envname("TOASTER_CACHE_SIZE")
      ->transform(SizeText());
}

void AddCacheOptions(CLI::App& command, CacheOptions& options) {
  AddCacheDirectoryOption(command, options);
  AddCacheSizeOption(command, options);
  command
      .add_option("--cache-daily-writes", options.daily_writes,
                  "Most bytes written to --cache-dir in a day, which spares the disk; 0: no limit "
                  "(default: 64GB)")
      ->envname("TOASTER_CACHE_DAILY_WRITES")
      ->transform(SizeText());
  command
      .add_option("--cache-least-tokens", options.least_tokens,
                  "Tokens that a place in --cache-dir has to save")
      ->envname("TOASTER_CACHE_LEAST_TOKENS")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
}

PrefixStoreOptions StoreOptionsOf(const CacheOptions& options,
                                  std::function<void(const std::string&)> note) {
  PrefixStoreOptions store;
  store.directory = options.directory;
  store.most_bytes = options.size;
  store.daily_bytes = options.daily_writes;
  store.least_tokens = options.least_tokens;
  store.note = std::move(note);
  return store;
}

std::unique_ptr<PrefixStore> OpenStore(const CacheOptions& options, RunningModel& running,
                                       std::function<void(const std::string&)> note) {
  if (options.directory.empty()) return nullptr;
  return std::make_unique<PrefixStore>(StoreOptionsOf(options, std::move(note)), running);
}

}  // namespace toaster
