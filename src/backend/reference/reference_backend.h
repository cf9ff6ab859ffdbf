#pragma once

#include "backend/backend.h"

namespace toaster {

/// The plain backend: one thread, one obvious loop per formula, the oracle of all others.
class ReferenceBackend : public Backend {
 public:
  explicit ReferenceBackend(Numerics numerics) : Backend(numerics) {}
  std::string name() const override { return "reference"; }

  void Embed(std::span<const int32_t> tokens, const Matrix& embed, int64_t copies,
             Tensor& output) override;
  void HyperPre(const Tensor& streams, const HyperParameters& parameters, Tensor& input,
                Tensor& post, Tensor& comb) override;
  void HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb, const Tensor& streams,
                 Tensor& output) override;
  void HyperHead(const Tensor& streams, const HyperParameters& parameters, Tensor& output) override;
  void RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) override;
  void Linear(const Tensor& x, std::span<const Projection> projections) override;
  void GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                     Tensor& output) override;
  void PrepareQueries(Tensor& q, float eps, const Rotation& rotation) override;
  void StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                    uint8_t* entries) override;
  void Compress(const Tensor& values, const Tensor& scores, const CompressParameters& parameters,
                std::span<const Segment> segments,
                std::span<const CompressTarget> targets) override;
  void SelectEntries(Tensor& q, Tensor& weights, const Rotation& rotation,
                     std::span<const Segment> segments, std::span<const PagedRows* const> keys,
                     int64_t topk, Selection& selection, Tensor* scores) override;
  void Attend(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
              std::span<const Segment> segments, std::span<const AttendSource> sources,
              Tensor& output) override;
  void Route(const Tensor& x, const RouteParameters& parameters, Routing& routing) override;
  void Experts(const Tensor& x, const Routing& routing, ExpertSource& experts,
               const ExpertMatrices& shared, float swiglu_limit, Tensor& output) override;
  void AddToStreams(const Tensor& e, const Tensor& h, Tensor& streams) override;

 private:
  /// Sum of products in the order of this numerics: pairs of BF16 values in `official`, floats in
  /// `fp32`.
  float Dot(const float* a, const float* b, int64_t n) const;
  /// The hyper-connection's products u [mixes], scaled by the root mean square of all streams (5.1
  /// steps 1 and 2).
  void HyperMix(const float* streams, int64_t width, const HyperParameters& parameters,
                float* mixes) const;
  /// y [rows, matrix rows] = x W^T with the input as it is, unrounded.
  void Multiply(const Tensor& x, const Matrix& weight, Tensor& y) const;
  /// The inputs that `weight` sees: quantised if it is.
  void LinearInput(const Tensor& x, const Matrix& weight, Tensor& input) const;
  /// One expert on the rows x that chose it, with their routing weights.
  void Expert(const Tensor& x, const ExpertMatrices& expert, const std::vector<float>& weights,
              float limit, Tensor& output) const;
};

}  // namespace toaster
