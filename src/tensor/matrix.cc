#include "tensor/matrix.h"

#include <algorithm>

namespace toaster {

namespace {

// values[i] = decode(i) times its block's scale.
template <typename Decode>
void ExpandBlocks(const Matrix& matrix, int64_t scale_row, int64_t block, float* values,
                  Decode decode) {
  for (int64_t begin = 0; begin < matrix.columns; begin += block) {
    float scale = 1;
    if (matrix.quantised()) {
      const int64_t at = scale_row * matrix.scale_columns() + begin / block;
      scale = matrix.scale_format == ScaleFormat::kFloat32
                  ? LoadUnaligned<float>(matrix.scales + 4 * at)
                  : E8m0ToFloat(matrix.scales[at]);
    }
    const int64_t end = std::min(begin + block, matrix.columns);
    for (int64_t i = begin; i < end; ++i) values[i] = decode(i) * scale;
  }
}

}  // namespace

void ExpandRow(const Matrix& matrix, int64_t row, float* values) {
  const uint8_t* data = matrix.data + row * matrix.row_bytes();
  switch (matrix.format) {
    case NumberFormat::kFloat32:
      std::memcpy(values, data, static_cast<size_t>(4 * matrix.columns));
      break;
    case NumberFormat::kBf16:
      for (int64_t i = 0; i < matrix.columns; ++i)
        values[i] = Bf16ToFloat(LoadUnaligned<uint16_t>(data + 2 * i));
      break;
    case NumberFormat::kE4m3:
      ExpandBlocks(matrix, row / 128, 128, values, [&](int64_t i) { return E4m3ToFloat(data[i]); });
      break;
    case NumberFormat::kE2m1:
      ExpandBlocks(matrix, row, 32, values, [&](int64_t i) {
        return E2m1ToFloat(i % 2 ? data[i / 2] >> 4 : data[i / 2] & 15);
      });
      break;
  }
}

}  // namespace toaster
