#include "tensor/matrix.h"

namespace toaster {

void ExpandRow(const Matrix& matrix, int64_t row, float* values) {
  const uint8_t* data = matrix.data + row * matrix.row_bytes();
  const int64_t scale_row = matrix.format == NumberFormat::kE2m1 ? row : row / 128;
  const int64_t block = matrix.format == NumberFormat::kE2m1 ? 32 : 128;
  const auto scale = [&](int64_t column) {
    const int64_t at = scale_row * matrix.scale_columns() + column / block;
    return matrix.scale_format == ScaleFormat::kFloat32
               ? LoadUnaligned<float>(matrix.scales + 4 * at)
               : E8m0ToFloat(matrix.scales[at]);
  };
  for (int64_t i = 0; i < matrix.columns; ++i) {
    switch (matrix.format) {
      case NumberFormat::kFloat32:
        values[i] = LoadUnaligned<float>(data + 4 * i);
        break;
      case NumberFormat::kBf16:
        values[i] = Bf16ToFloat(LoadUnaligned<uint16_t>(data + 2 * i));
        break;
      case NumberFormat::kE4m3:
        values[i] = E4m3ToFloat(data[i]) * scale(i);
        break;
      case NumberFormat::kE2m1:
        values[i] = E2m1ToFloat(i % 2 ? data[i / 2] >> 4 : data[i / 2] & 15) * scale(i);
        break;
    }
  }
}

}  // namespace toaster
