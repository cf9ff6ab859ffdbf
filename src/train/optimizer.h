#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backward.h"
#include "model/gradients.h"
#include "train/trained_weights.h"

namespace toaster {

/// Constants of the optimisers (V4 report, section on pre-training settings).
struct OptimizerSettings {
  bool muon = true;        ///< of the matrices that UsesMuon() tells; otherwise AdamW trains all
  float momentum = 0.95f;  ///< Muon
  float update_scale = 0.18f;  ///< Muon: root mean square of an update, that of AdamW
  float beta1 = 0.9f;          ///< AdamW
  float beta2 = 0.95f;
  float epsilon = 1e-20f;
  float decay = 0.1f;        ///< both; decoupled, of every parameter
  float bias_speed = 1e-3f;  ///< of the routers' selection biases
};

/// Whether Muon trains the tensor: every matrix but embedding, head and position biases. AdamW
/// trains the rest.
bool UsesMuon(const TensorSpec& spec);

/// BackwardBackend::Orthogonalise() of one matrix x [rows, columns].
void Orthogonalise(BackwardBackend& backend, int64_t rows, int64_t columns, float* x);

/// One step of each optimiser on arrays of equal size. `step` counts from 1.
void AdamWStep(std::span<float> weights, std::span<const float> gradient, std::span<float> mean,
               std::span<float> square, int64_t step, float rate,
               const OptimizerSettings& settings);
/// weights [rows, columns]; `update` is scratch of the same size and ends as the orthogonal matrix.
void MuonStep(BackwardBackend& backend, int64_t rows, int64_t columns, std::span<float> weights,
              std::span<const float> gradient, std::span<float> momentum, std::span<float> update,
              float rate, const OptimizerSettings& settings);
/// Raises the biases of experts chosen less often than the mean, lowers the others'.
void BiasStep(std::span<float> biases, std::span<const int64_t> loads, float speed);

/// The length of all gradients together, summed in double in one order.
double GradientNorm(const ParameterArrays& gradients);

/// The optimisers' state and their step over a whole model. The backward backend, which multiplies
/// matrices, is borrowed. One thread at a time.
class Optimizer {
 public:
  Optimizer(const TrainedWeights& weights, BackwardBackend& backend,
            const OptimizerSettings& settings = {});

  /// Updates masters and biases; call weights.Store() after. `loads` per block as LossValues gives
  /// them. Gradients are multiplied by `gradient_scale` first (clipping); they are used up: of
  /// matrices the update is left in their place. With `trained`, tensors it is false for stay as
  /// they are.
  void Step(TrainedWeights& weights, ParameterArrays& gradients,
            std::span<const std::vector<int64_t>> loads, float rate, float gradient_scale = 1,
            bool (*trained)(const TensorSpec&) = nullptr);

  int64_t steps() const { return steps_; }
  /// For checkpoints.
  void set_steps(int64_t steps) { steps_ = steps; }
  ParameterArrays& momentum() { return momentum_; }
  ParameterArrays& square() { return square_; }

 private:
  BackwardBackend& backend_;
  OptimizerSettings settings_;
  ParameterArrays momentum_;  ///< Muon's momentum, AdamW's mean
  ParameterArrays square_;    ///< AdamW's alone; elsewhere zero
  int64_t steps_ = 0;
};

/// The learning rate over a run: linear warm-up, constant, cosine tail.
struct Schedule {
  double peak = 0;
  double final = 0;
  int64_t warmup_steps = 0;
  int64_t steps = 0;        ///< in all
  int64_t decay_steps = 0;  ///< of the tail

  /// Of step `step`, counted from 0.
  double Rate(int64_t step) const;
};

}  // namespace toaster
