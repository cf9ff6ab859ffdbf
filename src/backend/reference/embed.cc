#include <algorithm>

#include "backend/reference/reference_backend.h"

namespace toaster {

void ReferenceBackend::Embed(std::span<const int32_t> tokens, const Matrix& embed, int64_t copies,
                             Tensor& output) {
  const int64_t d = embed.columns;
  output.Reshape({static_cast<int64_t>(tokens.size()), copies, d});
  for (int64_t row = 0; row < output.rows(); ++row) {
    float* first = output.Row(row);
    ExpandRow(embed, tokens[static_cast<size_t>(row)], first);
    for (int64_t copy = 1; copy < copies; ++copy) std::copy_n(first, d, first + copy * d);
  }
}

void ReferenceBackend::AddToStreams(const Tensor& e, const Tensor& h, Tensor& streams) {
  const int64_t rows = h.extent(0), n = h.extent(1), d = h.extent(2);
  if (&streams != &h) streams.Reshape({rows, n, d});
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < n * d; ++i)
      streams.Row(row)[i] = Round(e.Row(row)[i % d] + h.Row(row)[i]);
  }
}

}  // namespace toaster
