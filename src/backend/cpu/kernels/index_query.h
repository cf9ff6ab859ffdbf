#pragma once

#include <cstdint>

namespace toaster::kernels {

/// Blocks whose scales differ by at most 2^kMostFold share one: the larger scales go into the
/// codes.
static constexpr int kMostFold = 3;
/// With scales and weights from 2^-kPlainExponent to 2^kPlainExponent every intermediate result of
/// a score is a normal float wherever powers of two are multiplied, so that the place does not
/// matter.
static constexpr int kPlainExponent = 30;

/// Puts one indexer head into the arrays of an IndexQuery (kernels.h) as column `head`. `key` is
/// the head in the form of an indexer key (encode_key).
void PackIndexHead(const uint8_t* key, int64_t width, int64_t head, int64_t padded_heads,
                   uint8_t* codes, float* scales);

/// Where number `k` of a head or key stands among the codes of a FoldedIndexQuery: of every 128, or
/// of what is left, first the even ones, then the odd ones, as nibbles come apart.
static constexpr int64_t FoldedOrder(int64_t k, int64_t width) {
  const int64_t group = k / 128 * 128;
  const int64_t numbers = width - group < 128 ? width - group : 128;
  return group + (k % 2) * (numbers / 2) + k % 128 / 2;
}

/// The same for a FoldedIndexQuery: codes, `offset`, and the weight from `weight`. False if the
/// head's scales or its weight do not allow it.
bool FoldIndexHead(const uint8_t* key, int64_t width, int64_t head, int64_t padded_heads,
                   float weight, int8_t* codes, int32_t* offset, float* folded_weight);

/// Where head `h` stands among the weights of a CandidateQuery: as two vectors of 16 dots are
/// packed to one of words.
static constexpr int64_t CandidateOrder(int64_t h) {
  return h / 32 * 32 + h % 16 / 4 * 8 + h / 16 % 2 * 4 + h % 4;
}

/// What a CandidateQuery's slacks are worth, a sixteenth, and more than the floats of bounds can be
/// off: those of whole numbers up to 2^31 and two operations on them, by 2^-22 of the terms at
/// most; the slack is 2^-7 of those at least.
static constexpr float kSlackUnit = 1.001f / 16;

/// Dots of a CandidateQuery up to this one count.
static constexpr int kMostCandidateDot = (1 << 14) - 1;

/// The weights of a FoldedIndexQuery for a CandidateQuery: weights and slacks [heads]. The result
/// is the scale.
float WholeIndexWeights(const float* folded_weights, int64_t heads, int16_t* weights,
                        int16_t* slacks);

}  // namespace toaster::kernels
