#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace toaster {

void CpuBackend::Embed(std::span<const int32_t> tokens, const Matrix& embed, int64_t copies,
                       Tensor& output) {
  const int64_t d = embed.columns;
  output.Reshape({static_cast<int64_t>(tokens.size()), copies, d});
  pool_.ParallelFor(output.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* first = output.Row(row);
      ExpandRow(embed, tokens[static_cast<size_t>(row)], first);
      for (int64_t copy = 1; copy < copies; ++copy) std::copy_n(first, d, first + copy * d);
    }
  });
}

void CpuBackend::AddToStreams(const Tensor& e, const Tensor& h, Tensor& streams) {
  const int64_t rows = h.extent(0), n = h.extent(1), d = h.extent(2);
  if (&streams != &h) streams.Reshape({rows, n, d});
  pool_.ParallelFor(rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * n; i < end * n; ++i) {
      const float* add = e.Row(i / n);
      for (int64_t c = 0; c < d; ++c)
        streams.data()[i * d + c] = Round(add[c] + h.data()[i * d + c]);
    }
  });
}

}  // namespace toaster
