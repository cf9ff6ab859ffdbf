// Queries and the single key-value vector of a token, sections 6, 7.1 and 7.2.

#include <algorithm>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "backend/row_operations.h"
#include "tensor/block_quantization.h"

namespace toaster {

void ReferenceBackend::PrepareQueries(Tensor& q, float eps, const Rotation& rotation) {
  const int64_t heads = q.extent(1), width = q.extent(2), pairs = rotation.cosine.width();
  std::vector<float> squares(static_cast<size_t>(width));
  for (int64_t row = 0; row < q.rows(); ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      PrepareQueryHead(q.Row(row) + head * width, width, eps, rotation.cosine.Row(row),
                       rotation.sine.Row(row), pairs, official(), squares.data());
    }
  }
}

void ReferenceBackend::StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                                    uint8_t* entries) {
  std::vector<float> x(static_cast<size_t>(shape.width()));
  for (int64_t row = 0; row < kv.rows(); ++row) {
    std::copy_n(kv.Row(row), shape.width(), x.data());
    RotateTail(x.data(), shape.width(), rotation.cosine.Row(row), rotation.sine.Row(row),
               rotation.cosine.width(), false, official());
    if (!official() && quantises()) QuantizeE4m3(x.data(), shape.plain, 64, x.data());
    WriteEntry(x.data(), shape, official(), entries + row * EntryRowBytes(shape));
  }
}

}  // namespace toaster
