#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <new>
#include <span>

#include "base/check.h"

namespace toaster {

/// Uninitialised memory for `size` values, aligned to a cache line; grows, never shrinks, does not
/// keep values.
template <typename T>
class AlignedArray {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedArray() = default;
  explicit AlignedArray(int64_t size) { Resize(size); }

  /// Afterwards at least `size` values fit; the old ones are lost if the memory had to move.
  void Resize(int64_t size) {
    if (size > capacity_) {
      data_.reset();
      const size_t bytes =
          (static_cast<size_t>(size) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
      void* memory = std::aligned_alloc(kAlignment, bytes);
      if (memory == nullptr) throw std::bad_alloc();
      data_.reset(static_cast<T*>(memory));
      capacity_ = size;
    }
    size_ = size;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
  int64_t capacity_ = 0;
};

/// A dense row-major array of floats with one to four dimensions, owned. Activations are floats in
/// both numerics; in `official` they hold BF16 values wherever the model rounds.
class Tensor {
 public:
  static constexpr int kMaxDimensions = 4;

  Tensor() = default;
  explicit Tensor(std::initializer_list<int64_t> shape) { Reshape(shape); }

  /// Gives the tensor a new shape, reusing its memory where it fits. The values are unspecified
  /// afterwards.
  void Reshape(std::initializer_list<int64_t> shape) {
    CHECK(shape.size() >= 1 && shape.size() <= kMaxDimensions, "{} dimensions", shape.size());
    dimensions_ = static_cast<int>(shape.size());
    int64_t size = 1;
    int i = 0;
    for (const int64_t extent : shape) {
      CHECK(extent >= 0, "extent {}", extent);
      shape_[static_cast<size_t>(i++)] = extent;
      size *= extent;
    }
    data_.Resize(size);
  }
  void ReshapeLike(const Tensor& other) {
    dimensions_ = other.dimensions_;
    shape_ = other.shape_;
    data_.Resize(other.size());
  }
  int dimensions() const { return dimensions_; }
  int64_t extent(int dimension) const { return shape_[static_cast<size_t>(dimension)]; }
  int64_t size() const { return data_.size(); }
  /// Rows along the first dimension, and numbers in each.
  int64_t rows() const { return shape_[0]; }
  int64_t width() const { return shape_[0] == 0 ? 0 : size() / shape_[0]; }

  float* data() { return data_.data(); }
  const float* data() const { return data_.data(); }
  float* Row(int64_t row) { return data() + row * width(); }
  const float* Row(int64_t row) const { return data() + row * width(); }
  std::span<const float> values() const { return {data(), static_cast<size_t>(size())}; }

  void Fill(float value) { std::fill_n(data(), size(), value); }
  void CopyFrom(const Tensor& other) {
    ReshapeLike(other);
    std::copy_n(other.data(), other.size(), data());
  }

 private:
  AlignedArray<float> data_;
  std::array<int64_t, kMaxDimensions> shape_ = {};
  int dimensions_ = 0;
};

}  // namespace toaster
