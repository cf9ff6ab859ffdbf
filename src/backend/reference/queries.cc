// Queries and the single key-value vector of a token, sections 6, 7.1 and 7.2.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

void ReferenceBackend::PrepareQueries(Tensor& q, float eps, const Rotation& rotation) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  const int64_t rotary = 2 * rotation.cosine.width();
  std::vector<float> squares(static_cast<size_t>(width));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      float* x = q.Row(row) + head * width;
      for (int64_t i = 0; i < width; ++i) squares[static_cast<size_t>(i)] = Round(x[i] * x[i]);
      const float mean = Round(SumFloat(squares.data(), width) / static_cast<float>(width));
      const float factor = Round(1.0f / std::sqrt(Round(mean + eps)));
      for (int64_t i = 0; i < width; ++i) x[i] = Round(x[i] * factor);
      float* tail = x + width - rotary;
      RotatePairs(tail, rotary, rotation.cosine.Row(row), rotation.sine.Row(row), false);
      for (int64_t i = 0; i < rotary; ++i) tail[i] = Round(tail[i]);
    }
  }
}

void ReferenceBackend::StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                                    uint8_t* entries) {
  std::vector<float> x(static_cast<size_t>(shape.width()));
  for (int64_t row = 0; row < kv.rows(); ++row) {
    std::copy_n(kv.Row(row), shape.width(), x.data());
    float* tail = x.data() + shape.plain;
    RotatePairs(tail, shape.rotary, rotation.cosine.Row(row), rotation.sine.Row(row), false);
    for (int64_t i = 0; i < shape.rotary; ++i) tail[i] = Round(tail[i]);
    WriteEntry(x.data(), shape, entries + row * EntryRowBytes(shape));
  }
}

void ReferenceBackend::WriteEntry(const float* values, EntryShape shape, uint8_t* entry) const {
  if (official()) {
    EncodeEntry(values, shape, entry);
  } else {
    std::memcpy(entry, values, static_cast<size_t>(4 * shape.width()));
  }
}

void ReferenceBackend::ReadEntry(const uint8_t* entry, EntryShape shape, float* values) const {
  if (official()) {
    DecodeEntry(entry, shape, values);
  } else {
    std::memcpy(values, entry, static_cast<size_t>(4 * shape.width()));
  }
}

}  // namespace toaster
