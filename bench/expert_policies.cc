// Which experts should stay in memory? Records what the router of a model chooses while it reads a
// text, then plays that trace to caches of several sizes under several rules, and prints the share
// of choices that each would have to read from disk.
//
//   expert_policies MODEL TEXT [TOKENIZER] [--tokens N]

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "checkpoint/load_weights.h"
#include "engine/expert_store.h"
#include "engine/expert_uses.h"
#include "engine/mapped_experts.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace toaster {
namespace {

/// What was chosen, [token][block][choice], as numbers of block * experts + number.
using Trace = std::vector<std::vector<std::vector<int64_t>>>;

/// Hands out experts and keeps what it was asked for.
class Recorder : public ExpertSupply {
 public:
  Recorder(const LoadedModel& model, Trace& trace)
      : experts_(model), per_block_(model.config.n_routed_experts), trace_(trace) {}

  ExpertSource& Open(int64_t block, const Routing& routing) override {
    const auto per_token = static_cast<size_t>(routing.experts_per_token);
    const size_t rows = routing.experts.size() / per_token;
    if (block == 0) first_ = trace_.size(), trace_.resize(first_ + rows);
    for (size_t row = 0; row < rows; ++row) {
      std::vector<int64_t>& chosen = trace_[first_ + row].emplace_back();
      for (size_t i = 0; i < per_token; ++i)
        chosen.push_back(block * per_block_ + routing.experts[row * per_token + i]);
    }
    return experts_.Open(block, routing);
  }

 private:
  MappedExperts experts_;
  int64_t per_block_;
  Trace& trace_;
  size_t first_ = 0;
};

/// Decides who makes room: the expert of least worth.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual void Use(int64_t expert, int64_t token) = 0;
  virtual void EndToken() {}
  virtual double Worth(int64_t expert) const = 0;
};

class LastUse : public Policy {  // least recently used
 public:
  explicit LastUse(int64_t experts) : last_(static_cast<size_t>(experts), -1) {}
  void Use(int64_t expert, int64_t token) override { last_[static_cast<size_t>(expert)] = token; }
  double Worth(int64_t expert) const override {
    return static_cast<double>(last_[static_cast<size_t>(expert)]);
  }

 private:
  std::vector<int64_t> last_;
};

class LastUseButOne : public Policy {  // LRU-2
 public:
  explicit LastUseButOne(int64_t experts) : uses_(static_cast<size_t>(experts), {-1, -1}) {}
  void Use(int64_t expert, int64_t token) override {
    auto& [before, last] = uses_[static_cast<size_t>(expert)];
    before = std::exchange(last, token);
  }
  double Worth(int64_t expert) const override {
    const auto& [before, last] = uses_[static_cast<size_t>(expert)];
    return static_cast<double>(before) + 1e-9 * static_cast<double>(last);
  }

 private:
  std::vector<std::pair<int64_t, int64_t>> uses_;
};

class AgedUses : public Policy {  // the store's own
 public:
  AgedUses(int64_t experts, double half_life) : uses_(experts, half_life) {}
  void Use(int64_t expert, int64_t) override { uses_.Add(expert); }
  void EndToken() override { uses_.Age(1); }
  double Worth(int64_t expert) const override { return uses_.weight(expert); }

 private:
  ExpertUses uses_;
};

class NextUse : public Policy {  // knows the future: no rule can do better
 public:
  NextUse(int64_t experts, const Trace& trace)
      : times_(static_cast<size_t>(experts)), at_(static_cast<size_t>(experts), 0) {
    for (size_t token = 0; token < trace.size(); ++token) {
      for (const auto& block : trace[token]) {
        for (const int64_t expert : block)
          times_[static_cast<size_t>(expert)].push_back(static_cast<int64_t>(token));
      }
    }
  }
  void Use(int64_t expert, int64_t) override { ++at_[static_cast<size_t>(expert)]; }
  double Worth(int64_t expert) const override {
    const auto index = static_cast<size_t>(expert);
    const std::vector<int64_t>& times = times_[index];
    return at_[index] < times.size() ? -static_cast<double>(times[at_[index]])
                                     : -std::numeric_limits<double>::infinity();
  }

 private:
  std::vector<std::vector<int64_t>> times_;
  std::vector<size_t> at_;  // uses so far
};

/// The share of choices that were not in a cache of `capacity` experts; the first quarter of the
/// trace fills it and is not counted.
double MissedShare(const Trace& trace, Policy& policy, int64_t experts, int64_t capacity) {
  std::vector<double> worth(static_cast<size_t>(experts));
  std::vector<bool> present(static_cast<size_t>(experts));
  std::set<std::pair<double, int64_t>> ranks;
  int64_t missed = 0, used = 0, count = 0;
  const size_t counted_from = trace.size() / 4;
  for (size_t token = 0; token < trace.size(); ++token) {
    for (const std::vector<int64_t>& chosen : trace[token]) {
      for (const int64_t expert : chosen) {
        const auto index = static_cast<size_t>(expert);
        if (present[index]) ranks.erase({worth[index], expert});
        policy.Use(expert, static_cast<int64_t>(token));
        worth[index] = policy.Worth(expert);
        used += token >= counted_from;
        if (!present[index]) {
          missed += token >= counted_from;
          // What this block has just been given is not among the ranks, so it stays.
          if (count == capacity) {
            present[static_cast<size_t>(ranks.begin()->second)] = false;
            ranks.erase(ranks.begin());
            --count;
          }
          present[index] = true;
          ++count;
        }
      }
      for (const int64_t expert : chosen)
        ranks.insert({worth[static_cast<size_t>(expert)], expert});
    }
    policy.EndToken();
  }
  return static_cast<double>(missed) / static_cast<double>(used);
}

Trace Record(const LoadedModel& loaded, const std::vector<int32_t>& tokens) {
  Trace trace;
  const std::unique_ptr<Backend> backend = CreateBackend({});
  Recorder recorder(loaded, trace);
  Model model(loaded.config, loaded.weights, *backend, &recorder);
  const auto cache = model.NewCache();
  Tensor streams;
  constexpr size_t kChunk = 512;
  for (size_t begin = 0; begin < tokens.size(); begin += kChunk) {
    const SequenceChunk chunk{
        std::span(tokens).subspan(begin, std::min(kChunk, tokens.size() - begin)), cache.get()};
    model.Forward({&chunk, 1}, streams);
  }
  return trace;
}

void Run(const std::string& path, const std::string& text_file, const std::string& tokenizer_path,
         int64_t most_tokens) {
  const LoadedModel loaded = LoadModel(path);
  std::ifstream file(text_file);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<int32_t> tokens =
      Tokenizer::ForModel(tokenizer_path.empty() ? path : tokenizer_path, loaded.config.vocab_size)
          .Encode(text);
  tokens.resize(std::min(tokens.size(), static_cast<size_t>(most_tokens)));
  const Trace trace = Record(loaded, tokens);
  const int64_t experts = loaded.config.total_blocks() * loaded.config.n_routed_experts;
  const int64_t served = loaded.config.num_hidden_layers * loaded.config.n_routed_experts;
  fmt::print("{} tokens, {} blocks of {} experts, {} per token\n\n", tokens.size(),
             loaded.config.num_hidden_layers, loaded.config.n_routed_experts,
             loaded.config.num_experts_per_tok);

  struct Named {
    std::string name;
    std::function<std::unique_ptr<Policy>()> make;
  };
  std::vector<Named> policies = {
      {"least recently used", [&] { return std::make_unique<LastUse>(experts); }},
      {"LRU-2", [&] { return std::make_unique<LastUseButOne>(experts); }},
      {"least often used", [&] { return std::make_unique<AgedUses>(experts, 1e12); }}};
  for (const double half_life : {32.0, 128.0, ExpertStore::kHalfLife, 2048.0, 8192.0}) {
    policies.push_back({fmt::format("often, half-life {:.0f}", half_life),
                        [&, half_life] { return std::make_unique<AgedUses>(experts, half_life); }});
  }
  policies.push_back({"next use known", [&] { return std::make_unique<NextUse>(experts, trace); }});
  const std::vector<double> shares = {0.0625, 0.125, 0.25, 0.5, 0.75};
  fmt::print("| missed, of experts in memory |");
  for (const double share : shares) fmt::print(" {:.4g} % |", 100 * share);
  fmt::print("\n|---|");
  for (size_t i = 0; i < shares.size(); ++i) fmt::print("---|");
  fmt::print("\n");
  for (const Named& named : policies) {
    fmt::print("| {} |", named.name);
    for (const double share : shares) {
      const auto capacity = std::max(static_cast<int64_t>(share * static_cast<double>(served)),
                                     2 * loaded.config.num_experts_per_tok);
      fmt::print(" {:.1f} % |", 100 * MissedShare(trace, *named.make(), experts, capacity));
      std::fflush(stdout);
    }
    fmt::print("\n");
  }
}

}  // namespace
}  // namespace toaster

int main(int argc, char** argv) {
  CLI::App app("Compares rules for which experts stay in memory on what a router chose for a text");
  std::string model, text, tokenizer;
  int64_t tokens = 4096;
  app.add_option("model", model, "Model directory")->required();
  app.add_option("text", text, "Text file")->required();
  app.add_option("tokenizer", tokenizer, "Directory of the tokenizer (default: the model's)");
  app.add_option("--tokens", tokens, "Tokens to read at most")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    toaster::Run(model, text, tokenizer, tokens);
  } catch (const std::exception& error) {
    fmt::print(stderr, "expert_policies: {}\n", error.what());
    return 1;
  }
  return 0;
}
