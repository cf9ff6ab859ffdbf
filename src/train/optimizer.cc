#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace toaster {

namespace {

struct Coefficients {
  float a, b, c;
};
constexpr Coefficients kFast = {3.4445f, -4.7750f, 2.0315f};
constexpr Coefficients kSettle = {2.0f, -1.5f, 0.5f};
constexpr int kFastSteps = 8, kSteps = 10;

void Transpose(const float* x, int64_t rows, int64_t columns, float* y) {
  constexpr int64_t kBlock = 16;
  for (int64_t top = 0; top < rows; top += kBlock) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = top; r < std::min(top + kBlock, rows); ++r)
        y[c * rows + r] = x[r * columns + c];
    }
  }
}

}  // namespace

bool UsesMuon(const TensorSpec& spec) {
  if (spec.columns == 0 || spec.name == "embed.weight" || spec.name == "head.weight") return false;
  return spec.name.size() < 4 || spec.name.compare(spec.name.size() - 4, 4, ".ape") != 0;
}

void Orthogonalise(BackwardBackend& backend, int64_t rows, int64_t columns, float* x) {
  // Tall matrices are turned, so that the Gram matrix is the small one.
  const int64_t n = std::min(rows, columns), m = std::max(rows, columns);
  std::vector<float> wide(static_cast<size_t>(n * m)), tall(wide.size()),
      gram(static_cast<size_t>(n * n)), square(gram.size()), sum(wide.size());
  if (rows > columns) {
    Transpose(x, rows, columns, wide.data());
  } else {
    std::copy_n(x, n * m, wide.begin());
  }
  double squares = 0;
  for (const float v : wide) squares += static_cast<double>(v) * v;
  if (squares == 0) return;
  const auto factor = static_cast<float>(1.0 / std::sqrt(squares));
  for (float& v : wide) v *= factor;
  for (int step = 0; step < kSteps; ++step) {
    const auto [a, b, c] = step < kFastSteps ? kFast : kSettle;
    // x <- a x + (b s + c s^2) x with s = x x^T, which is symmetric.
    backend.MultiplyTransposed(wide.data(), n, wide.data(), n, m, gram.data());
    backend.MultiplyTransposed(gram.data(), n, gram.data(), n, n, square.data());
    for (size_t i = 0; i < gram.size(); ++i) gram[i] = b * gram[i] + c * square[i];
    Transpose(wide.data(), n, m, tall.data());
    backend.MultiplyTransposed(gram.data(), n, tall.data(), m, n, sum.data());
    for (size_t i = 0; i < wide.size(); ++i) wide[i] = a * wide[i] + sum[i];
  }
  if (rows > columns) {
    Transpose(wide.data(), n, m, x);
  } else {
    std::copy(wide.begin(), wide.end(), x);
  }
}

void AdamWStep(std::span<float> weights, std::span<const float> gradient, std::span<float> mean,
               std::span<float> square, int64_t step, float rate,
               const OptimizerSettings& settings) {
  const auto mean_factor =
      static_cast<float>(1 / (1 - std::pow(static_cast<double>(settings.beta1), step)));
  const auto square_factor =
      static_cast<float>(1 / (1 - std::pow(static_cast<double>(settings.beta2), step)));
  const float keep = 1 - rate * settings.decay;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float g = gradient[i];
    mean[i] = settings.beta1 * mean[i] + (1 - settings.beta1) * g;
    square[i] = settings.beta2 * square[i] + (1 - settings.beta2) * g * g;
    const float length = std::sqrt(square[i] * square_factor) + settings.epsilon;
    weights[i] = weights[i] * keep - rate * (mean[i] * mean_factor / length);
  }
}

void MuonStep(BackwardBackend& backend, int64_t rows, int64_t columns, std::span<float> weights,
              std::span<const float> gradient, std::span<float> momentum, std::span<float> update,
              float rate, const OptimizerSettings& settings) {
  for (size_t i = 0; i < weights.size(); ++i) {
    momentum[i] = settings.momentum * momentum[i] + gradient[i];
    update[i] = settings.momentum * momentum[i] + gradient[i];
  }
  Orthogonalise(backend, rows, columns, update.data());
  const float factor =
      rate * settings.update_scale * std::sqrt(static_cast<float>(std::max(rows, columns)));
  const float keep = 1 - rate * settings.decay;
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = weights[i] * keep - factor * update[i];
}

void BiasStep(std::span<float> biases, std::span<const int64_t> loads, float speed) {
  int64_t total = 0;
  for (const int64_t load : loads) total += load;
  const auto count = static_cast<int64_t>(loads.size());
  for (size_t e = 0; e < loads.size(); ++e) {
    const int64_t missing = total - loads[e] * count;  // times count: exact
    biases[e] += missing > 0 ? speed : missing < 0 ? -speed : 0;
  }
}

double GradientNorm(const ParameterArrays& gradients) {
  double squares = 0;
  for (const float g : gradients.values()) squares += static_cast<double>(g) * g;
  return std::sqrt(squares);
}

Optimizer::Optimizer(const TrainedWeights& weights, BackwardBackend& backend,
                     const OptimizerSettings& settings)
    : backend_(backend),
      settings_(settings),
      momentum_(weights.config(), weights.weights()),
      square_(weights.config(), weights.weights()) {}

void Optimizer::Step(TrainedWeights& weights, ParameterArrays& gradients,
                     std::span<const std::vector<int64_t>> loads, float rate, float gradient_scale,
                     bool (*trained)(const TensorSpec&)) {
  ++steps_;
  ParameterArrays& masters = weights.masters();
  for (const ParameterArrays::Part& part : masters.parts()) {
    if (trained != nullptr && !trained(part.spec)) continue;
    const std::span<float> gradient = gradients.Values(part);
    if (gradient_scale != 1) {
      for (float& g : gradient) g *= gradient_scale;
    }
    const std::span<float> values = masters.Values(part), momentum = momentum_.Values(part);
    if (!settings_.muon || !UsesMuon(part.spec)) {
      AdamWStep(values, gradient, momentum, square_.Values(part), steps_, rate, settings_);
      continue;
    }
    // The groups of wo_a are maps of their own.
    constexpr std::string_view kGrouped = "wo_a.weight";
    const std::string& name = part.spec.name;
    const bool grouped =
        name.size() > kGrouped.size() &&
        name.compare(name.size() - kGrouped.size(), kGrouped.size(), kGrouped) == 0;
    const int64_t groups = grouped ? weights.config().o_groups : 1;
    const int64_t rows = part.spec.rows / groups, columns = part.spec.columns;
    const auto size = static_cast<size_t>(rows * columns);
    update_.Resize(rows * columns);
    for (size_t begin = 0; begin < values.size(); begin += size) {
      MuonStep(backend_, rows, columns, values.subspan(begin, size), gradient.subspan(begin, size),
               momentum.subspan(begin, size), {update_.data(), size}, rate, settings_);
    }
  }
  for (size_t block = 0; block < loads.size(); ++block) {
    const std::span<float> biases = weights.RouterBias(static_cast<int64_t>(block));
    if (biases.empty() || loads[block].empty()) continue;
    BiasStep(biases, loads[block], settings_.bias_speed);
  }
}

double Schedule::Rate(int64_t step) const {
  if (step < warmup_steps)
    return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const int64_t left = steps - step;
  if (left > decay_steps) return peak;
  const double done =
      decay_steps == 0 ? 1 : 1 - static_cast<double>(left) / static_cast<double>(decay_steps);
  return final + (peak - final) * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

}  // namespace toaster
