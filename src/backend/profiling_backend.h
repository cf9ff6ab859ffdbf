#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/profile.h"

namespace toaster {

/// Passes every operation on to another backend and writes down its time and work.
class ProfilingBackend : public Backend {
 public:
  /// The profile is borrowed.
  ProfilingBackend(std::unique_ptr<Backend> inner, Profile& profile);
  std::string name() const override { return inner_->name(); }
  MachineLimits MeasureLimits() override { return inner_->MeasureLimits(); }
  double CurrentBf16Rate() override { return inner_->CurrentBf16Rate(); }

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
  template <typename Run>
  void Measure(const std::string& name, const Work& work, const Run& run);

  std::unique_ptr<Backend> inner_;
  Profile& profile_;
};

}  // namespace toaster
