#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "apps/cache_options.h"
#include "apps/commands.h"
#include "base/error.h"
#include "base/units.h"

namespace toaster {
namespace {

PrefixStoreOptions Existing(const CacheOptions& options) {
  if (!std::filesystem::is_directory(std::filesystem::path(options.directory) / "places")) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: no prefix store is there; serve and run make one when they are "
                            "given --cache-dir",
                            options.directory));
  }
  return StoreOptionsOf(options, [](const std::string& line) { fmt::print("{}\n", line); });
}

std::string AgeText(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{:.0f} h", seconds / 3600);
  return fmt::format("{:.0f} days", seconds / 86400);
}

void PrintTotal(PrefixDirectory& directory) {
  const PrefixDirectory::Contents contents = directory.List();
  fmt::print("{} places, {} files of rows, {}", contents.places.size(), contents.rows_files,
             BytesText(static_cast<double>(contents.bytes)));
  if (contents.unused_bytes > 0) {
    fmt::print(", of them {} that no place needs",
               BytesText(static_cast<double>(contents.unused_bytes)));
  }
  fmt::print("\n");
}

void List(const CacheOptions& options) {
  PrefixDirectory directory(Existing(options));
  const PrefixDirectory::Contents contents = directory.List();
  if (!contents.places.empty()) {
    fmt::print("{:<32}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}\n", "place", "tokens", "saves", "bytes",
               "own rows", "unused");
  }
  for (const PrefixDirectory::Listed& listed : contents.places) {
    fmt::print("{}  {:>9}  {:>9.0f}  {:>9}  {:>9}  {:>8}\n", listed.place.key, listed.place.tokens,
               listed.gained_tokens, BytesText(static_cast<double>(listed.bytes)),
               BytesText(static_cast<double>(listed.rows_bytes)), AgeText(listed.age_seconds));
  }
  PrintTotal(directory);
}

}  // namespace

void AddCacheCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("cache", "Look after a prefix store (--cache-dir of serve and run)");
  command->require_subcommand(1);
  auto options = std::make_shared<CacheOptions>();
  const auto add = [&](const char* name, const char* help, std::function<void()> run) {
    CLI::App* action = command->add_subcommand(name, help);
    AddCacheDirectoryOption(*action, *options)->required();
    action->callback(std::move(run));
    return action;
  };
  add("ls", "List the places to go on from, those unused for longest first",
      [options] { List(*options); });
  add("verify", "Examine every byte, and remove what is damaged", [options, &exit_code] {
    PrefixDirectory directory(Existing(*options));
    const int64_t removed = directory.Verify();
    fmt::print("{} damaged files removed\n", removed);
    PrintTotal(directory);
    if (removed > 0) exit_code = 1;
  });
  CLI::App* prune =
      add("prune", "Give up what is worth least, until the size is kept, and rows without a place",
          [options] {
            PrefixDirectory directory(Existing(*options));
            directory.Prune(options->size);
            PrintTotal(directory);
          });
  AddCacheSizeOption(*prune, *options);
  add("clear", "Remove everything", [options] {
    PrefixDirectory directory(Existing(*options));
    directory.Clear();
    PrintTotal(directory);
  });
}

}  // namespace toaster
