#include "engine/expert_uses.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <system_error>

#include "base/digest.h"
#include "base/error.h"
#include "base/new_file.h"

namespace toaster {

namespace {

constexpr char kFirstLine[] = "toaster expert uses 1\n";

// What follows the model's name: the weights as little-endian floats.
std::string DigestOf(const std::string& model, std::string_view weights) {
  Digest digest;
  digest.AddValues(std::span<const char>(model));
  digest.AddValues(std::span<const char>(weights));
  return digest.Hex();
}

}  // namespace

ExpertUses::ExpertUses(int64_t experts, double half_life)
    : half_life_(half_life), weights_(static_cast<size_t>(experts)) {}

void ExpertUses::Age(double tokens) {
  use_ *= std::exp2(tokens / half_life_);
  constexpr double kMost = 1e200;
  if (use_ < kMost) return;
  for (double& weight : weights_) weight /= use_;
  use_ = 1;
}

std::vector<int64_t> ExpertUses::MostUsed() const {
  std::vector<int64_t> experts(weights_.size());
  std::iota(experts.begin(), experts.end(), 0);
  std::erase_if(experts, [&](int64_t expert) { return weight(expert) <= 0; });
  std::stable_sort(experts.begin(), experts.end(),
                   [&](int64_t a, int64_t b) { return weight(a) > weight(b); });
  return experts;
}

bool ExpertUses::Load(const std::filesystem::path& file, const std::string& model) {
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const size_t bytes = weights_.size() * sizeof(float);
  const std::string head = kFirstLine + model + "\n";
  if (text.size() < bytes) return false;
  const std::string_view weights = std::string_view(text).substr(text.size() - bytes);
  if (text != head + DigestOf(model, weights) + "\n" + std::string(weights)) return false;
  std::vector<float> loaded(weights_.size());
  std::memcpy(loaded.data(), weights.data(), bytes);
  if (!std::all_of(loaded.begin(), loaded.end(),
                   [](float weight) { return std::isfinite(weight) && weight >= 0; })) {
    return false;
  }
  weights_.assign(loaded.begin(), loaded.end());
  use_ = 1;
  return true;
}

void ExpertUses::Save(const std::filesystem::path& file, const std::string& model) const {
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot make the directory: {}",
                                            file.parent_path().string(), error.message()));
  }
  std::string weights(weights_.size() * sizeof(float), '\0');
  for (size_t i = 0; i < weights_.size(); ++i) {
    const auto weight = static_cast<float>(weights_[i] / use_);
    std::memcpy(weights.data() + i * sizeof(float), &weight, sizeof(float));
  }
  WriteWholeFile(file, kFirstLine + model + "\n" + DigestOf(model, weights) + "\n" + weights);
}

}  // namespace toaster
