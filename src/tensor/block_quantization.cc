#include "tensor/block_quantization.h"

#include <algorithm>
#include <cmath>

#include "tensor/number_formats.h"

namespace toaster {

void QuantizeE4m3(const float* x, int64_t n, int64_t block, float* output) {
  for (int64_t begin = 0; begin < n; begin += block) {
    float amax = kE4m3AmaxFloor;
    for (int64_t i = begin; i < begin + block; ++i) amax = std::max(amax, std::fabs(x[i]));
    const float scale = E8m0ToFloat(BlockScaleByte(amax, kE4m3InverseMax));
    for (int64_t i = begin; i < begin + block; ++i) {
      output[i] = E4m3ToFloat(FloatToE4m3(x[i] / scale)) * scale;
    }
  }
}

}  // namespace toaster
