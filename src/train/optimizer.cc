#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/flush_denormals.h"

namespace toaster {

namespace {

// The groups of wo_a are maps of their own.
int64_t GroupsOf(const TensorSpec& spec, const Config& config) {
  return spec.name.ends_with("wo_a.weight") ? config.o_groups : 1;
}

// The momentum takes up the gradient, and the gradient becomes what is to be orthogonalised.
void LookAhead(std::span<const float> gradient, std::span<float> momentum, std::span<float> update,
               const OptimizerSettings& settings) {
  for (size_t i = 0; i < update.size(); ++i) {
    const float g = gradient[i];
    momentum[i] = settings.momentum * momentum[i] + g;
    update[i] = settings.momentum * momentum[i] + g;
  }
}

// Subtracts an orthogonal matrix [rows, columns], or a piece of it, from the weights.
void ApplyUpdate(std::span<float> weights, std::span<const float> update, int64_t rows,
                 int64_t columns, float rate, const OptimizerSettings& settings) {
  const float factor =
      rate * settings.update_scale * std::sqrt(static_cast<float>(std::max(rows, columns)));
  const float keep = 1 - rate * settings.decay;
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = weights[i] * keep - factor * update[i];
}

}  // namespace

bool UsesMuon(const TensorSpec& spec) {
  if (spec.columns == 0 || spec.name == "embed.weight" || spec.name == "head.weight") return false;
  return spec.name.size() < 4 || spec.name.compare(spec.name.size() - 4, 4, ".ape") != 0;
}

void Orthogonalise(BackwardBackend& backend, int64_t rows, int64_t columns, float* x) {
  const MatrixSpan matrix{x, rows, columns};
  backend.Orthogonalise({&matrix, 1});
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
  LookAhead(gradient, momentum, update, settings);
  Orthogonalise(backend, rows, columns, update.data());
  ApplyUpdate(weights, update, rows, columns, rate, settings);
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
  const ScopedFlushDenormals flush;
  ++steps_;
  ParameterArrays& masters = weights.masters();
  // What goes element by element is cut into pieces for the threads.
  constexpr int64_t kPiece = 1 << 16;
  struct Piece {
    const ParameterArrays::Part* part;
    size_t begin, size;
    bool muon;
  };
  std::vector<Piece> pieces;
  std::vector<MatrixSpan> matrices;
  for (const ParameterArrays::Part& part : masters.parts()) {
    if (trained != nullptr && !trained(part.spec)) continue;
    const bool muon = settings_.muon && UsesMuon(part.spec);
    for (int64_t begin = 0; begin < part.size; begin += kPiece) {
      pieces.push_back({&part, static_cast<size_t>(begin),
                        static_cast<size_t>(std::min(kPiece, part.size - begin)), muon});
    }
    if (!muon) continue;
    const int64_t groups = GroupsOf(part.spec, weights.config()), rows = part.spec.rows / groups;
    for (int64_t group = 0; group < groups; ++group) {
      float* first = gradients.Values(part).data() + group * rows * part.spec.columns;
      matrices.push_back({first, rows, part.spec.columns});
    }
  }
  const auto count = static_cast<int64_t>(pieces.size());
  backend_.ForEach(count, [&](int64_t i) {
    const auto& [part, begin, size, muon] = pieces[static_cast<size_t>(i)];
    const std::span<float> gradient = gradients.Values(*part).subspan(begin, size),
                           momentum = momentum_.Values(*part).subspan(begin, size);
    if (gradient_scale != 1) {
      for (float& g : gradient) g *= gradient_scale;
    }
    if (muon) {
      LookAhead(gradient, momentum, gradient, settings_);
    } else {
      AdamWStep(masters.Values(*part).subspan(begin, size), gradient, momentum,
                square_.Values(*part).subspan(begin, size), steps_, rate, settings_);
    }
  });
  backend_.Orthogonalise(matrices);
  backend_.ForEach(count, [&](int64_t i) {
    const auto& [part, begin, size, muon] = pieces[static_cast<size_t>(i)];
    if (!muon) return;
    const int64_t rows = part->spec.rows / GroupsOf(part->spec, weights.config());
    ApplyUpdate(masters.Values(*part).subspan(begin, size),
                gradients.Values(*part).subspan(begin, size), rows, part->spec.columns, rate,
                settings_);
  });
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
