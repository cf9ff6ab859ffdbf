// What a running server has done so far, in totals.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "apps/commands.h"
#include "base/units.h"
#include "server/http_client.h"

namespace toaster {
namespace {

struct StatsOptions {
  std::string url = "http://127.0.0.1:8080", key;
  bool json = false;
};

/// The samples of a metrics page, summed over their labels.
std::map<std::string, double> ReadMetrics(const std::string& page) {
  std::map<std::string, double> samples;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t name_end = line.find_first_of("{ ");
    const size_t value = line.rfind(' ');
    if (name_end == std::string::npos) continue;
    samples[line.substr(0, name_end)] += std::strtod(line.c_str() + value, nullptr);
  }
  return samples;
}

void Stats(const StatsOptions& options) {
  std::string url = options.url;
  while (!url.empty() && url.back() == '/') url.pop_back();
  const std::map<std::string, double> samples = ReadMetrics(HttpGet(url + "/metrics", options.key));
  const auto sample = [&](const char* name) {
    const auto found = samples.find(name);
    return found == samples.end() ? 0.0 : found->second;
  };
  const double hits = sample("toaster_prompt_cache_hit_tokens_total");
  const double misses = sample("toaster_prompt_cache_miss_tokens_total");
  const double share = hits + misses > 0 ? hits / (hits + misses) : 0;
  const double requests = sample("vllm:request_success_total");
  const double generated = sample("toaster_generated_tokens_total");
  const double dollars = sample("toaster_saved_dollars");
  if (options.json) {
    const nlohmann::ordered_json report = {{"requests", requests},
                                           {"prompt_tokens", hits + misses},
                                           {"prompt_cache_hit_tokens", hits},
                                           {"prompt_cache_hit_share", share},
                                           {"generated_tokens", generated},
                                           {"would_have_cost_dollars", dollars},
                                           {"running", sample("toaster_requests_running")},
                                           {"waiting", sample("toaster_requests_waiting")},
                                           {"connections", sample("toaster_connections")}};
    fmt::print("{}\n", report.dump(2));
    return;
  }
  const auto line = [](const char* what, const std::string& value) {
    fmt::print("{:<28}{}\n", what, value);
  };
  const auto count = [](double value) { return GroupedText(static_cast<int64_t>(value)); };
  line("requests", count(requests));
  line("prompt tokens", count(hits + misses));
  line("  of them from the cache", fmt::format("{} ({:.1f} %)", count(hits), 100 * share));
  line("generated tokens", count(generated));
  line("would have cost", fmt::format("${:.4f}", dollars));
  line("running, waiting", fmt::format("{}, {}", count(sample("toaster_requests_running")),
                                       count(sample("toaster_requests_waiting"))));
}

}  // namespace

void AddStatsCommand(CLI::App& app, int&) {
  CLI::App* command =
      app.add_subcommand("stats",
                         "Ask a running server for its totals: requests, tokens, cache "
                         "hits, and what the same traffic "
                         "would have cost");
  auto options = std::make_shared<StatsOptions>();
  command->add_option("--url", options->url, "Where toaster serve listens")
      ->envname("TOASTER_URL")
      ->capture_default_str();
  command->add_option("--api-key", options->key, "Key, where the server needs one")
      ->envname("TOASTER_API_KEY");
  command->add_flag("--json", options->json, "Print JSON")->envname("TOASTER_JSON");
  command->callback([options] { Stats(*options); });
}

}  // namespace toaster
