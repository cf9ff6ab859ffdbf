#pragma once

#include <cstdint>
#include <string>

#include "tensor/number_formats.h"

namespace toaster {

/// How the numbers of a weight are stored.
enum class NumberFormat { kFloat32, kBf16, kE4m3, kE2m1 };

/// How block scales are stored; both are powers of two.
enum class ScaleFormat { kNone, kE8m0, kFloat32 };

/// A weight [rows, columns] = [outputs, inputs], row-major, seen in place: usually inside a mapped
/// checkpoint. Owns nothing.
///
/// E4M3 has one scale per 128 x 128 tile: [ceil(rows/128), ceil(columns/128)]. E2M1 packs two
/// numbers per byte, the even column in the low nibble, and has one scale per row and 32 columns:
/// [rows, columns/32]. A matrix with scales is quantised: its input is rounded to E4M3 in blocks of
/// 128 first.
struct Matrix {
  NumberFormat format = NumberFormat::kBf16;
  ScaleFormat scale_format = ScaleFormat::kNone;
  int64_t rows = 0;
  int64_t columns = 0;
  const uint8_t* data = nullptr;    ///< any alignment
  const uint8_t* scales = nullptr;  ///< any alignment

  bool quantised() const { return scale_format != ScaleFormat::kNone; }
  int64_t row_bytes() const {
    switch (format) {
      case NumberFormat::kFloat32:
        return columns * 4;
      case NumberFormat::kBf16:
        return columns * 2;
      case NumberFormat::kE4m3:
        return columns;
      case NumberFormat::kE2m1:
        return columns / 2;
    }
    return 0;
  }
  /// Scales in one row of scales.
  int64_t scale_columns() const {
    return format == NumberFormat::kE2m1 ? columns / 32 : (columns + 127) / 128;
  }
  int64_t data_bytes() const { return rows * row_bytes(); }
  int64_t scale_bytes() const {
    if (!quantised()) return 0;
    const int64_t scale_rows = format == NumberFormat::kE2m1 ? rows : (rows + 127) / 128;
    return scale_rows * scale_columns() * (scale_format == ScaleFormat::kFloat32 ? 4 : 1);
  }
  /// Rows [first, first + count) as a matrix of their own. With E4M3 scales `first` is a multiple
  /// of 128.
  Matrix RowRange(int64_t first, int64_t count) const {
    Matrix part = *this;
    part.rows = count;
    part.data += first * row_bytes();
    if (quantised()) {
      const int64_t scale_row = format == NumberFormat::kE2m1 ? first : first / 128;
      part.scales += scale_row * scale_columns() * (scale_format == ScaleFormat::kFloat32 ? 4 : 1);
    }
    return part;
  }
};

/// Row `row` of `matrix` as floats [columns]: code times scale, the product rounded once (exact for
/// sound scales).
void ExpandRow(const Matrix& matrix, int64_t row, float* values);

/// A stored vector of BF16 or F32 numbers, seen in place. Owns nothing.
struct Vector {
  NumberFormat format = NumberFormat::kBf16;
  int64_t size = 0;
  const uint8_t* data = nullptr;  ///< any alignment

  float operator[](int64_t i) const {
    return format == NumberFormat::kBf16 ? Bf16ToFloat(LoadUnaligned<uint16_t>(data + 2 * i))
                                         : LoadUnaligned<float>(data + 4 * i);
  }
};

}  // namespace toaster
