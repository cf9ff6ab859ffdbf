#include "backend/cpu/kernels/index_query.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "backend/cpu/kernels/kernels.h"
#include "tensor/number_formats.h"

namespace toaster::kernels {

namespace {

// Both codes of a byte doubled, the low nibble first.
using CodePair = std::array<int8_t, 2>;

constexpr std::array<CodePair, 256> MakeDoubledPairs() {
  std::array<CodePair, 256> pairs = {};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 2; ++i) {
      const int code = byte >> (4 * i) & 15;
      const float doubled = 2 * kE2m1Values[code & 7];
      pairs[static_cast<size_t>(byte)][static_cast<size_t>(i)] =
          static_cast<int8_t>(code & 8 ? -doubled : doubled);
    }
  }
  return pairs;
}

constexpr std::array<CodePair, 256> kDoubledPairs = MakeDoubledPairs();

constexpr int kScaleBias = 127;

// The place of code `k` of a head in [width/4, padded_heads, 4].
int64_t PlaceOf(int64_t k, int64_t head, int64_t padded_heads) {
  return (k / 4 * padded_heads + head) * 4 + k % 4;
}

bool IsZeroBlock(const uint8_t* codes) {
  return std::all_of(codes, codes + 16, [](uint8_t byte) { return (byte & 0x77) == 0; });
}

bool IsPlainWeight(float weight) {
  const float size = std::abs(weight);
  return size == 0 ||
         (size >= std::ldexp(1.0f, -kPlainExponent) && size <= std::ldexp(1.0f, kPlainExponent));
}

}  // namespace

void PackIndexHead(const uint8_t* key, int64_t width, int64_t head, int64_t padded_heads,
                   uint8_t* codes, float* scales) {
  for (int64_t block = 0; block < width / 32; ++block) {
    for (int64_t pair = 16 * block; pair < 16 * (block + 1); ++pair) {
      uint8_t* out = codes + PlaceOf(2 * pair, head, padded_heads);
      for (size_t i = 0; i < 2; ++i)
        out[i] = static_cast<uint8_t>(kIndexBias + kDoubledPairs[key[pair]][i]);
    }
    scales[block * padded_heads + head] = E8m0ToFloat(key[width / 2 + block]) * 0.25f;
  }
}

bool FoldIndexHead(const uint8_t* key, int64_t width, int64_t head, int64_t padded_heads,
                   float weight, int8_t* codes, int32_t* offset, float* folded_weight) {
  const uint8_t* scales = key + width / 2;
  // A block of zeros has no say: its scale may be anything.
  int least = kScaleBias + kPlainExponent + 1, most = 0;
  for (int64_t block = 0; block < width / 32; ++block) {
    if (IsZeroBlock(key + 16 * block)) continue;
    least = std::min<int>(least, scales[block]);
    most = std::max<int>(most, scales[block]);
  }
  if (most == 0) least = most = kScaleBias;
  if (most - least > kMostFold || least < kScaleBias - kPlainExponent ||
      most > kScaleBias + kPlainExponent || !IsPlainWeight(weight)) {
    return false;
  }
  int sum = 0;
  for (int64_t pair = 0; pair < width / 2; ++pair) {
    const int fold = std::clamp(scales[pair / 16] - least, 0, most - least);
    for (int64_t i = 0; i < 2; ++i) {
      const auto code =
          static_cast<int8_t>(kDoubledPairs[key[pair]][static_cast<size_t>(i)] * (1 << fold));
      codes[PlaceOf(FoldedOrder(2 * pair + i, width), head, padded_heads)] = code;
      sum += code;
    }
  }
  *offset = -kFoldedIndexBias * sum;
  *folded_weight = weight * (E8m0ToFloat(static_cast<uint8_t>(least)) * 0.25f);
  return true;
}

float WholeIndexWeights(const float* folded_weights, int64_t heads, int16_t* weights,
                        int16_t* slacks) {
  // Each term of a score is rounded twice, by 2^-8 of itself at most; what the sum of floats adds
  // to that is far below the hundredth on top.
  constexpr double kRoundings = 0x1p-7 * 1.01;
  constexpr double kHalf = 0.501;  // of a whole weight, and what the division by `scale` is off
  float most = 0;
  for (int64_t h = 0; h < heads; ++h) most = std::max(most, std::abs(folded_weights[h]));
  // The sum of all terms has to stay an int32_t.
  const int64_t limit =
      std::min<int64_t>(std::numeric_limits<int16_t>::max(),
                        std::numeric_limits<int32_t>::max() / (heads * kMostCandidateDot));
  const float scale = most / static_cast<float>(limit);
  for (int64_t h = 0; h < heads; ++h) {
    const float whole = scale > 0 ? std::nearbyint(folded_weights[h] / scale) : 0.0f;
    const int64_t place = CandidateOrder(h);
    weights[place] = static_cast<int16_t>(whole);
    slacks[place] =
        static_cast<int16_t>(std::ceil(16 * (kHalf + (std::abs(whole) + kHalf) * kRoundings)));
  }
  return scale;
}

}  // namespace toaster::kernels
