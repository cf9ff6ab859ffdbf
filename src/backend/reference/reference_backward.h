#pragma once

#include "backend/backward.h"

namespace toaster {

/// The plain backward: one thread, one obvious loop per formula. Gradients stay floats in all
/// numerics; sums over an inner dimension follow tensor/summation.h, sums over rows rise by row.
class ReferenceBackward : public BackwardBackend {
 public:
  explicit ReferenceBackward(Numerics numerics) : BackwardBackend(numerics) {}

  void Embed(std::span<const int32_t> tokens, const Tensor& grad_output,
             float* grad_embed) override;
  void HyperPre(const Tensor& streams, const HyperParameters& parameters, const Tensor& grad_input,
                const Tensor& grad_post, const Tensor& grad_comb, const HyperGradients& gradients,
                Tensor& grad_streams) override;
  void HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb, const Tensor& streams,
                 Tensor& grad_streams, Tensor& grad_y, Tensor& grad_post,
                 Tensor& grad_comb) override;
  void HyperHead(const Tensor& streams, const HyperParameters& parameters,
                 const Tensor& grad_output, const HyperGradients& gradients,
                 Tensor& grad_streams) override;
  void RmsNorm(const Tensor& x, const Vector& weight, float eps, const Tensor& grad_output,
               float* grad_weight, Tensor& grad_x) override;
  void Linear(const Tensor& x, std::span<const ProjectionGradient> projections,
              Tensor* grad_x) override;
  void GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                     const Tensor& grad_output, float* grad_weight, Tensor& grad_x) override;
  void PrepareQueries(const Tensor& q, float eps, const Rotation& rotation, Tensor& grad) override;
  void StoreEntries(const Rotation& rotation, Tensor& grad) override;
  void Compress(const Tensor& values, const Tensor& scores, const CompressParameters& parameters,
                std::span<const Segment> segments, std::span<const Tensor> grad_entries,
                float* grad_ape, float* grad_norm, Tensor& grad_values,
                Tensor& grad_scores) override;
  void Attend(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
              std::span<const Segment> segments, std::span<const AttendSource> sources,
              const Tensor& grad_output, Tensor& grad_q, Tensor& grad_kv,
              std::vector<Tensor>& grad_entries, float* grad_sink,
              EntryProbabilities* probabilities) override;
  void SelectEntries(const Tensor& q, const Tensor& weights, const Rotation& rotation,
                     std::span<const Segment> segments, std::span<const PagedRows* const> keys,
                     const Selection& selection, const EntryProbabilities& probabilities,
                     IndexLoss& loss, Tensor& grad_q, Tensor& grad_weights,
                     std::vector<Tensor>& grad_keys) override;
  void Route(const Tensor& x, const RouteParameters& parameters, const Routing& routing,
             std::span<const Segment> segments, std::span<const float> grad_weights,
             BalanceLoss& balance, float* grad_gate, Tensor& grad_x) override;
  void Experts(const Tensor& x, const Routing& routing, std::span<const ExpertMatrices> experts,
               const ExpertMatrices& shared, float swiglu_limit, const Tensor& grad_output,
               std::span<const ExpertGradients> gradients, const ExpertGradients& shared_gradients,
               Tensor& grad_x, std::vector<float>& grad_weights) override;
  void AddToStreams(const Tensor& grad_streams, Tensor& grad_e) override;
  double CrossEntropy(const Tensor& x, const Matrix& head, std::span<const int32_t> targets,
                      float weight, float* grad_head, Tensor& grad_x) override;
  void Orthogonalise(std::span<const MatrixSpan> matrices) override;
  void ForEach(int64_t count, const std::function<void(int64_t)>& body) override;

 private:
  /// The input that `weight` saw in the forward pass.
  void LinearInput(const Tensor& x, const Matrix& weight, Tensor& input) const;
  /// For y = x W^T: grad_x += grad_y W and grad_weight += grad_y^T x, x as the weight saw it;
  /// either may be null.
  void Product(const Tensor& x, const Matrix& weight, const Tensor& grad_y, float* grad_weight,
               Tensor* grad_x) const;
  /// One expert on the rows x that chose it: adds to grad_x and sets grad_weights.
  void Expert(const Tensor& x, const ExpertMatrices& expert, const std::vector<float>& weights,
              float limit, const Tensor& grad_output, const ExpertGradients& gradients,
              Tensor& grad_x, std::vector<float>& grad_weights) const;
  float Round(float x) const { return official() ? RoundBf16(x) : x; }
};

}  // namespace toaster
