#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "base/digest.h"
#include "engine/sampler.h"
#include "engine/session.h"

namespace toaster {
namespace {

struct Options {
  EngineOptions engine;
  std::string tokens;
  int64_t steps = 0;
  int64_t top = 5;
  bool digest = false;
  bool json = false;
};

std::vector<int32_t> MostLikely(std::span<const float> logits, int64_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto middle = order.begin() + std::min<int64_t>(count, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), middle, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.erase(middle, order.end());
  return order;
}

void PrintRow(size_t position, std::span<const float> logits, const Options& options) {
  const std::vector<int32_t> best = MostLikely(logits, options.top);
  if (options.json) {
    nlohmann::ordered_json top = nlohmann::json::array();
    for (const int32_t token : best)
      top.push_back({{"token", token}, {"logit", logits[static_cast<size_t>(token)]}});
    fmt::print("{}\n", nlohmann::ordered_json({{"position", position}, {"top", top}}).dump());
    return;
  }
  fmt::print("{:>8} ", position);
  for (const int32_t token : best)
    fmt::print("  {}:{:.5f}", token, logits[static_cast<size_t>(token)]);
  fmt::print("\n");
}

void Logits(const Options& options) {
  const auto running = StartModel(options.engine);
  std::vector<int32_t> tokens = ParseTokenIds(options.tokens);
  Session session(running->model(), running->plan().chunk);
  Digest digest;
  for (int64_t step = 0; step <= options.steps; ++step) {
    if (step > 0) tokens.push_back(ArgMax(session.logits()));
    session.Sync(tokens);
    digest.AddValues(session.logits());
    PrintRow(tokens.size() - 1, session.logits(), options);
  }
  if (options.digest) PrintDigest(digest.Hex());
}

}  // namespace

void AddLogitsCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "logits",
      "Print the most likely next tokens after a list of tokens, and greedy steps from there");
  auto options = std::make_shared<Options>();
  AddEngineOptions(*command, options->engine);
  AddNumericsOption(*command, options->engine);
  command->add_option("--tokens", options->tokens, "Token ids with commas or blanks between")
      ->required()
      ->envname("TOASTER_TOKENS");
  command->add_option("--steps", options->steps, "Greedy steps after the list")
      ->envname("TOASTER_STEPS")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--top", options->top, "Tokens to print per position")
      ->envname("TOASTER_TOP")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print a JSON object per position")
      ->envname("TOASTER_JSON");
  command
      ->add_flag("--digest", options->digest,
                 "Print a digest of all logits computed, as the last line")
      ->envname("TOASTER_DIGEST");
  command->callback([options, &exit_code] {
    Logits(*options);
    exit_code = 0;
  });
}

}  // namespace toaster
