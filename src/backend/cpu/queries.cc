// Queries and the single key-value vector of a token, sections 6, 7.1 and 7.2.

#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"

namespace toaster {

void CpuBackend::PrepareQueries(Tensor& q, float eps, const Rotation& rotation) {
  const int64_t heads = q.extent(1), width = q.extent(2), pairs = rotation.cosine.width();
  pool_.ParallelFor(q.rows() * heads, 8, [&](int64_t begin, int64_t end, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    scratch.floats.Resize(width);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / heads;
      PrepareQueryHead(q.data() + i * width, width, eps, rotation.cosine.Row(row),
                       rotation.sine.Row(row), pairs, official(), scratch.floats.data());
    }
  });
}

void CpuBackend::StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                              uint8_t* entries) {
  const int64_t width = shape.width(), pairs = rotation.cosine.width();
  pool_.ParallelFor(kv.rows(), 8, [&](int64_t begin, int64_t end, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    scratch.floats.Resize(width);
    float* x = scratch.floats.data();
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(kv.Row(row), width, x);
      RotateTail(x, width, rotation.cosine.Row(row), rotation.sine.Row(row), pairs, false,
                 official());
      WriteEntry(x, shape, official(), entries + row * EntryRowBytes(shape));
    }
  });
}

}  // namespace toaster
