#pragma once

// The blocking of matrix products of many tokens by fused multiply-adds of floats. No instructions
// of its own: the files of an instruction set include it and say how a tile is expanded and
// multiplied.
//
// Loops, from the outside in: panels of tokens, whose inputs become floats once, odd and even ones
// apart; panels of rows; blocks of inputs; tiles of rows, expanded to floats in the first-level
// cache; groups of tokens, whose inputs of a block come from the second-level cache; groups of
// rows. The sums of a panel, 16 lanes each, wait in memory from one block of inputs to the next, so
// every lane adds in the one order of summation. Where one block is all there is, nothing waits and
// panels take more tokens, so that tiles are expanded less often.

#include <cstdint>

#include "backend/cpu/kernels/even_groups.h"
#include "backend/cpu/kernels/fetch_ahead.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

namespace {

using TileFetcher = RowFetcher<kFirstLevel>;

/// `Tiles` has
///   kGroupRows, kGroupTokens: the largest group of sums;
///   SeparateInputs(x, x_stride, tokens, steps, out): inputs of one group of tokens, 32 a step, to
///     32 * steps * tokens floats;
///   Product(weights, inputs, tokens, steps, first, last, sums, rows, y, y_stride, fetcher): so
///     many steps more (`first`: the first ones) of the sums of one group, which stand in `sums`
///     [tokens, kGroupRows, 16] in an order of its own; the last steps give y of the first `rows`
///     rows. Calls fetcher.Step() `steps` times.
/// `Weights` is constructed of (w, first row of a panel, first input, inputs) and has
///   kBits: of a stored weight;
///   Expand(first row, rows, tile): rows as groups of kGroupRows, each of kGroupRows * inputs
///     floats in the order of Tiles::Product; what is missing in the last group may be anything.
template <typename Tiles, typename Weights>
void BlockedFloatProduct(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                         float* y, int64_t y_stride, std::byte* scratch) {
  static_assert(kFloatTileRows % Tiles::kGroupRows == 0 &&
                kFloatGroupTokens % Tiles::kGroupTokens == 0);
  constexpr int64_t kGroupSums = Tiles::kGroupRows * 16;  // of one token
  const int64_t padded = (w.inner + 31) / 32 * 32;
  const EvenGroups panels(tokens, FloatPanelTokens(padded));
  auto* const sums = reinterpret_cast<float*>(scratch);
  float* const tile = sums + FloatPanelSums(padded);
  float* const inputs = tile + kFloatTileRows * kFloatBlock;
  const auto rows_from = [](int64_t row, int64_t end) {
    return end - row < kFloatTileRows ? end - row : kFloatTileRows;
  };
  const auto inputs_from = [](int64_t k, int64_t end) {
    return end - k < kFloatBlock ? end - k : kFloatBlock;
  };
  for (int64_t panel = 0; panel < panels.groups; ++panel) {
    const int64_t size = panels.Size(panel);
    const EvenGroups groups(size, Tiles::kGroupTokens);
    // [block, group of tokens, ...]
    for (int64_t k = 0; k < padded; k += kFloatBlock) {
      const int64_t block = inputs_from(k, padded);
      int64_t token = 0;
      for (int64_t g = 0; g < groups.groups; token += groups.Size(g++)) {
        Tiles::SeparateInputs(x + token * x_stride + k, x_stride, groups.Size(g), block / 32,
                              inputs + k * size + token * block);
      }
    }
    for (int64_t top = 0; top < w.rows; top += kFloatPanelRows) {
      const int64_t bottom = w.rows - top < kFloatPanelRows ? w.rows : top + kFloatPanelRows;
      for (int64_t k = 0; k < padded; k += kFloatBlock) {
        const int64_t block = inputs_from(k, padded);
        const Weights weights(w, top, k, block);
        for (int64_t row = top; row < bottom; row += kFloatTileRows) {
          const int64_t rows = rows_from(row, bottom);
          weights.Expand(row, rows, tile);
          // The next tile: of the same block, the next block or the next panel of rows.
          const bool same_block = row + rows < bottom, same_panel = k + block < padded;
          const int64_t next_row = same_block ? row + rows : same_panel ? top : bottom;
          const int64_t next_k = same_block ? k : same_panel ? k + block : 0;
          TileFetcher fetcher(
              w.data + next_row * w.row_bytes + next_k * Weights::kBits / 8, w.row_bytes,
              rows_from(next_row, w.rows), inputs_from(next_k, w.inner) * Weights::kBits / 8,
              groups.groups * ((rows + Tiles::kGroupRows - 1) / Tiles::kGroupRows) * (block / 32));
          int64_t token = 0;
          for (int64_t g = 0; g < groups.groups; token += groups.Size(g++)) {
            for (int64_t r = 0; r < rows; r += Tiles::kGroupRows) {
              const int64_t waiting = (row + r - top) / Tiles::kGroupRows * size + token;
              Tiles::Product(tile + r * block, inputs + k * size + token * block, groups.Size(g),
                             block / 32, k == 0, k + block == padded,
                             padded > kFloatBlock ? sums + waiting * kGroupSums : sums, rows - r,
                             y + token * y_stride + row + r, y_stride, fetcher);
            }
          }
        }
      }
    }
    x += size * x_stride;
    y += size * y_stride;
  }
}

}  // namespace

}  // namespace toaster::kernels
