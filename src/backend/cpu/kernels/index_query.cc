#include "backend/cpu/kernels/index_query.h"

#include <array>
#include <cstring>

#include "tensor/number_formats.h"

namespace toaster::kernels {

namespace {

using CodePair = std::array<int8_t, 2>;

// Both codes of a byte doubled, the low nibble first.
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

}  // namespace

void PackIndexHead(const uint8_t* key, int64_t width, int64_t head, int64_t padded_heads,
                   int8_t* codes, float* scales) {
  for (int64_t pair = 0; pair < width / 2; ++pair) {
    int8_t* out = codes + (pair / 2 * padded_heads + head) * 4 + pair % 2 * 2;
    std::memcpy(out, kDoubledPairs[key[pair]].data(), 2);
  }
  for (int64_t block = 0; block < width / 32; ++block) {
    scales[block * padded_heads + head] = E8m0ToFloat(key[width / 2 + block]) * 0.25f;
  }
}

}  // namespace toaster::kernels
