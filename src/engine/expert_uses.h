#pragma once

// How often each routed expert was used, which decides who stays in memory.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace toaster {

/// Counts of uses that age: a use weighs half as much after `half_life` more tokens. Only the order
/// of weights means something. Kept in a file between runs (docs/formats/expert_uses.md), so that a
/// model that starts again knows whom to read first. Not safe for threads.
class ExpertUses {
 public:
  explicit ExpertUses(int64_t experts, double half_life);

  void Add(int64_t expert) { weights_[static_cast<size_t>(expert)] += use_; }
  /// That many tokens went by.
  void Age(double tokens);
  double weight(int64_t expert) const { return weights_[static_cast<size_t>(expert)]; }
  /// Experts that were used at all, the most used first.
  std::vector<int64_t> MostUsed() const;

  /// Takes what a run of the same model left; `model` tells one from another. False if there is no
  /// such file or it belongs to another model or is damaged: then nothing changes.
  bool Load(const std::filesystem::path& file, const std::string& model);
  /// Writes the file anew, making its directory if need be. Throws Error(kIo) naming it.
  void Save(const std::filesystem::path& file, const std::string& model) const;

 private:
  double half_life_;
  double use_ = 1;  // weight of a use now: it grows, so that nothing else has to shrink
  std::vector<double> weights_;
};

}  // namespace toaster
