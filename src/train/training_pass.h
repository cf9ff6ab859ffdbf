#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backward.h"
#include "model/backward_block.h"
#include "model/gradients.h"
#include "model/model.h"

namespace toaster {

/// How the losses add up to the one that is differentiated.
struct LossWeights {
  float ce = 1;
  float mtp = 0.3f;
  float balance = 1e-4f;
  float index = 1;
};

/// The losses of a batch, unweighted but for `total`.
struct LossValues {
  double ce = 0;       ///< mean cross-entropy over rows with a next token
  double mtp = 0;      ///< the same of the draft block
  double balance = 0;  ///< summed over scored layers
  double index = 0;    ///< summed over layers of ratio 4
  double total = 0;
  int64_t targets = 0;  ///< rows with a next token
  /// Rows that chose each expert, per block; empty for hash-routed ones.
  std::vector<std::vector<int64_t>> loads;
};

/// One document: it is a sequence of its own, whatever it is packed with.
struct Document {
  std::span<const int32_t> tokens;
  /// Which tokens are to be predicted: their loss counts. Empty: all. As long as `tokens`.
  std::span<const uint8_t> wanted = {};
};

/// Forward and backward of one batch: the forward pass is the serving one, Model::Forward(), with a
/// new cache per document. The model and the backward backend are borrowed. Holds buffers; one
/// thread at a time.
class TrainingPass {
 public:
  TrainingPass(Model& model, const ModelWeights& weights, BackwardBackend& backward);

  /// Adds the gradients of the batch's total loss to `gradients`. No document is empty. With
  /// `grad_hidden`, keeps the gradient of the streams before each block and after the last, then
  /// those before and after the draft block, for checks.
  LossValues Run(std::span<const Document> documents, const LossWeights& loss_weights,
                 ParameterArrays& gradients, std::vector<Tensor>* grad_hidden = nullptr);

  /// What the last Run() kept of the forward pass: main layers, and the draft block.
  const ForwardSaved& saved() const { return saved_; }
  const ForwardSaved& draft_saved() const { return draft_saved_; }
  const Tensor& streams() const { return streams_; }

 private:
  /// Loss of a head with its gradient [rows, hc_mult, d] with respect to the streams; the result is
  /// the mean over `targets` that are no -1.
  double Head(const Tensor& streams, const HyperWeights& hyper, const Vector& norm,
              std::span<const int32_t> targets, float weight, ParameterArrays& gradients,
              Tensor& grad_streams);
  /// The draft block: adds its part of the gradient of the main model's last streams.
  void RunDraft(std::span<const Document> documents, const LossWeights& loss_weights,
                LossValues& losses, ParameterArrays& gradients, Tensor& grad_streams,
                std::vector<Tensor>* grad_hidden);
  void RunBlock(int64_t index, const BlockSaved& saved, std::span<const int32_t> tokens,
                std::span<const Segment> segments, const Rotation& rotation,
                const LossWeights& loss_weights, LossValues& losses, ParameterArrays& gradients,
                Tensor& grad_streams);

  Model& model_;
  const ModelWeights& weights_;
  BackwardBackend& backward_;
  ForwardSaved saved_, draft_saved_;
  Tensor streams_;
  std::vector<std::unique_ptr<SequenceCache>> caches_;
};

}  // namespace toaster
