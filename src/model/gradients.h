#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "backend/backward.h"
#include "model/config.h"
#include "model/weights.h"
#include "tensor/tensor.h"

namespace toaster {

/// A float for every trained number of a model: gradients, masters or moments. Owns one array in
/// the order of VisitTensors; the selection biases of routers and hash tables are not part of it.
/// Its parts are found by the name of the tensor or by the field of the ModelWeights it was made
/// for.
class ParameterArrays {
 public:
  struct Part {
    TensorSpec spec;
    int64_t begin = 0;  ///< in values()
    int64_t size = 0;
  };

  /// All zero. `weights` are borrowed: only the addresses of their fields matter.
  ParameterArrays(const Config& config, const ModelWeights& weights);

  const std::vector<Part>& parts() const { return parts_; }
  std::span<float> values() { return {values_.data(), static_cast<size_t>(values_.size())}; }
  std::span<const float> values() const {
    return {values_.data(), static_cast<size_t>(values_.size())};
  }
  std::span<float> Values(const Part& part) {
    return values().subspan(static_cast<size_t>(part.begin), static_cast<size_t>(part.size));
  }
  std::span<const float> Values(const Part& part) const {
    return values().subspan(static_cast<size_t>(part.begin), static_cast<size_t>(part.size));
  }
  /// Null if no tensor has that name.
  const Part* Find(const std::string& name) const;
  void Clear() { std::fill_n(values_.data(), values_.size(), 0.0f); }

  /// The array of a field of the ModelWeights.
  float* Of(const Matrix& field) { return At(&field); }
  float* Of(const Vector& field) { return At(&field); }
  HyperGradients Of(const HyperWeights& hyper) {
    return {Of(hyper.fn), Of(hyper.base), Of(hyper.scale)};
  }
  ExpertGradients Of(const ExpertWeights& expert) {
    return {Of(expert.w1), Of(expert.w2), Of(expert.w3)};
  }

 private:
  float* At(const void* field);

  std::vector<Part> parts_;
  std::unordered_map<const void*, int64_t> begins_;
  AlignedArray<float> values_;
};

}  // namespace toaster
