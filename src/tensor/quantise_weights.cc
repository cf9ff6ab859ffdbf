#include "tensor/quantise_weights.h"

#include <algorithm>
#include <cmath>

#include "tensor/number_formats.h"

namespace toaster {

namespace {

constexpr int64_t kTile = 128;
constexpr int64_t kRun = 32;

// Zeros alone have no scale of their own; 1 is as good as any. Byte 0 would be a denormal factor.
uint8_t ScaleByte(float amax, float inverse_max) {
  return amax == 0 ? 127 : std::max<uint8_t>(BlockScaleByte(amax, inverse_max), 1);
}

}  // namespace

void QuantiseTilesE4m3(const float* weights, int64_t rows, int64_t columns, uint8_t* codes,
                       uint8_t* scales) {
  for (int64_t top = 0; top < rows; top += kTile) {
    for (int64_t left = 0; left < columns; left += kTile) {
      const int64_t bottom = std::min(top + kTile, rows), right = std::min(left + kTile, columns);
      float amax = 0;
      for (int64_t r = top; r < bottom; ++r) {
        for (int64_t c = left; c < right; ++c)
          amax = std::max(amax, std::fabs(weights[r * columns + c]));
      }
      const uint8_t byte = ScaleByte(amax, kE4m3InverseMax);
      *scales++ = byte;
      const float scale = E8m0ToFloat(byte);
      for (int64_t r = top; r < bottom; ++r) {
        for (int64_t c = left; c < right; ++c)
          codes[r * columns + c] = FloatToE4m3(weights[r * columns + c] / scale);
      }
    }
  }
}

void QuantiseRowsE2m1(const float* weights, int64_t rows, int64_t columns, uint8_t* codes,
                      uint8_t* scales) {
  for (int64_t begin = 0; begin < rows * columns; begin += kRun) {
    const float* x = weights + begin;
    float amax = 0;
    for (int64_t i = 0; i < kRun; ++i) amax = std::max(amax, std::fabs(x[i]));
    const uint8_t byte = ScaleByte(amax, kE2m1InverseMax);
    *scales++ = byte;
    const float scale = E8m0ToFloat(byte);
    for (int64_t i = 0; i < kRun; i += 2) {
      *codes++ =
          static_cast<uint8_t>(FloatToE2m1(x[i] / scale) | FloatToE2m1(x[i + 1] / scale) << 4);
    }
  }
}

}  // namespace toaster
