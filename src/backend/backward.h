#pragma once

// The backward pass of every operation of backend.h: gradients of a scalar loss.
//
// What serving never includes. Conventions: the gradient of a tensor has the tensor's shape.
// Gradients of activations are outputs that are reshaped and overwritten, unless they are said to
// be added to. Gradients of parameters are float arrays in the parameter's shape that are added to;
// null where nobody wants them. Inputs are those that the forward operation had before it changed
// anything in place.
//
// Roundings have the gradient of the identity (straight-through): x of a quantised product is the
// rounded one, W is the stored one, and the gradients pass unchanged to what was rounded. A clamp
// or ReLU has gradient 0 beyond its limit, a choice (of experts, of entries) has none.
//
// Every sequence of a batch is a whole document: its segment starts at position 0.
//
// One thread calls at a time, holding ScopedFlushDenormals. Results do not depend on the number of
// threads.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace toaster {

/// Where the gradients of one set of hyper-connections go.
struct HyperGradients {
  float* fn = nullptr;
  float* base = nullptr;
  float* scale = nullptr;
};

/// One product of LinearBackward.
struct ProjectionGradient {
  const Matrix* weight = nullptr;
  const Tensor* grad_output = nullptr;  ///< [rows, weight rows]
  float* grad_weight = nullptr;         ///< [weight rows, weight columns]
};

/// Where the gradients of one expert go.
struct ExpertGradients {
  float* w1 = nullptr;
  float* w2 = nullptr;
  float* w3 = nullptr;
};

/// The sequence-wise balance loss of one layer (V3 report, 2.1.2): the sum over segments of
/// rows/batch rows times sum over e of f_e P_e.
struct BalanceLoss {
  float weight = 0;  ///< in the loss that is differentiated; 0 where the layer is hash-routed
  double value = 0;  ///< becomes the loss without the weight
};

/// The loss that trains an indexer: over all rows that have a chosen entry, the mean divergence
/// KL(target || softmax of the scores over the chosen entries).
struct IndexLoss {
  float weight = 0;
  double value = 0;
};

/// Head-summed attention probabilities of each row's chosen compressed entries, in the order of the
/// row's list.
using EntryProbabilities = std::vector<std::vector<float>>;

/// A matrix of floats [rows, columns] that belongs to someone else.
struct MatrixSpan {
  float* x = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
};

class BackwardBackend {
 public:
  explicit BackwardBackend(Numerics numerics) : numerics_(numerics) {}
  virtual ~BackwardBackend() = default;
  Numerics numerics() const { return numerics_; }

  /// Adds the gradients [rows, copies, d] of the embedded rows.
  virtual void Embed(std::span<const int32_t> tokens, const Tensor& grad_output,
                     float* grad_embed) = 0;

  /// HC_PRE, all Sinkhorn rounds included. Adds to `grad_streams` [rows, n, d].
  virtual void HyperPre(const Tensor& streams, const HyperParameters& parameters,
                        const Tensor& grad_input, const Tensor& grad_post, const Tensor& grad_comb,
                        const HyperGradients& gradients, Tensor& grad_streams) = 0;
  /// HC_POST: `streams` are the old ones; `grad_streams` holds the gradient of the new ones and
  /// becomes that of the old ones.
  virtual void HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                         const Tensor& streams, Tensor& grad_streams, Tensor& grad_y,
                         Tensor& grad_post, Tensor& grad_comb) = 0;
  virtual void HyperHead(const Tensor& streams, const HyperParameters& parameters,
                         const Tensor& grad_output, const HyperGradients& gradients,
                         Tensor& grad_streams) = 0;

  /// grad_x may be grad_output.
  virtual void RmsNorm(const Tensor& x, const Vector& weight, float eps, const Tensor& grad_output,
                       float* grad_weight, Tensor& grad_x) = 0;

  /// Adds to `grad_x` [rows, columns] if it is not null.
  virtual void Linear(const Tensor& x, std::span<const ProjectionGradient> projections,
                      Tensor* grad_x) = 0;
  virtual void GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                             const Tensor& grad_output, float* grad_weight, Tensor& grad_x) = 0;

  /// q [rows, heads, c] as the projection gave it; the gradient in place.
  virtual void PrepareQueries(const Tensor& q, float eps, const Rotation& rotation,
                              Tensor& grad) = 0;
  /// In place: from the gradient of the stored entries to that of what was stored.
  virtual void StoreEntries(const Rotation& rotation, Tensor& grad) = 0;

  /// `grad_entries`: [entries, D] per segment.
  virtual void Compress(const Tensor& values, const Tensor& scores,
                        const CompressParameters& parameters, std::span<const Segment> segments,
                        std::span<const Tensor> grad_entries, float* grad_ape, float* grad_norm,
                        Tensor& grad_values, Tensor& grad_scores) = 0;

  /// grad_kv [rows, c] is that of the rows' own window entries, grad_entries [entries, c] per
  /// segment that of the compressed ones. `probabilities`, if given, is filled for IndexLoss.
  virtual void Attend(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
                      std::span<const Segment> segments, std::span<const AttendSource> sources,
                      const Tensor& grad_output, Tensor& grad_q, Tensor& grad_kv,
                      std::vector<Tensor>& grad_entries, float* grad_sink,
                      EntryProbabilities* probabilities) = 0;

  /// Value and gradients of the indexer's loss. q [rows, index heads, D] and weights [rows, index
  /// heads] as SelectEntries left them; the gradients are of what it was given. `selection` lists
  /// the chosen entries, whose `probabilities` are the target before normalisation and constants.
  virtual void SelectEntries(const Tensor& q, const Tensor& weights, const Rotation& rotation,
                             std::span<const Segment> segments,
                             std::span<const PagedRows* const> keys, const Selection& selection,
                             const EntryProbabilities& probabilities, IndexLoss& loss,
                             Tensor& grad_q, Tensor& grad_weights,
                             std::vector<Tensor>& grad_keys) = 0;

  /// From the gradient of the routing weights [rows, experts per token], and of the balance loss.
  /// Adds to grad_x.
  virtual void Route(const Tensor& x, const RouteParameters& parameters, const Routing& routing,
                     std::span<const Segment> segments, std::span<const float> grad_weights,
                     BalanceLoss& balance, float* grad_gate, Tensor& grad_x) = 0;
  /// Sets grad_x and the gradient of the routing weights.
  virtual void Experts(const Tensor& x, const Routing& routing,
                       std::span<const ExpertMatrices> experts, const ExpertMatrices& shared,
                       float swiglu_limit, const Tensor& grad_output,
                       std::span<const ExpertGradients> gradients,
                       const ExpertGradients& shared_gradients, Tensor& grad_x,
                       std::vector<float>& grad_weights) = 0;

  /// From the gradient of streams [rows, n, d] that AddToStreams made (which is also that of h) to
  /// that of e [rows, d].
  virtual void AddToStreams(const Tensor& grad_streams, Tensor& grad_e) = 0;

  /// The head and the cross-entropy in one: x [rows, d], targets one token per row or -1 for none.
  /// The result is the sum of -ln softmax(head x)[target] over rows with a target; the gradients
  /// are those of `weight` times it. Logits live for a few rows at a time.
  virtual double CrossEntropy(const Tensor& x, const Matrix& head, std::span<const int32_t> targets,
                              float weight, float* grad_head, Tensor& grad_x) = 0;

  /// Turns each matrix into the nearest one with orthonormal rows or columns, in place, by the
  /// Newton-Schulz steps of newton_schulz.h: what the Muon optimiser needs. Zeros stay zeros.
  virtual void Orthogonalise(std::span<const MatrixSpan> matrices) = 0;
  /// Runs body(i) for every i below count, on as many threads as there are, in any order: for the
  /// element by element work around a pass. Bodies touch nothing of each other's.
  virtual void ForEach(int64_t count, const std::function<void(int64_t)>& body) = 0;

 protected:
  bool official() const { return numerics_ == Numerics::kOfficial; }
  bool quantises() const { return numerics_ != Numerics::kFloat32; }

 private:
  Numerics numerics_;
};

}  // namespace toaster
