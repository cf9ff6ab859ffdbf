#pragma once

// The blocking of matrix products of many tokens by fused multiply-adds of floats. No instructions
// of its own: the files of an instruction set include it and say how a tile is expanded and
// multiplied.
//
// Loops, from the outside in: panels of rows and of tokens; blocks of inputs; tiles of rows,
// expanded to floats in the first-level cache; groups of tokens, whose inputs stand in the
// second-level cache as floats, odd and even ones apart; groups of rows. The sums of a panel, 16
// lanes each, wait in memory from one block of inputs to the next, so every lane adds in the one
// order of summation. Where one block is all there is, nothing waits and panels take more tokens,
// so that tiles are expanded less often.

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
/// `Weights` is constructed of (w, first input, inputs) and has
///   kBits: of a stored weight;
///   Expand(first row, rows, tile): rows as groups of kGroupRows, each of kGroupRows * inputs
///     floats in the order of Tiles::Product; what is missing in the last group may be anything.
template <typename Tiles, typename Weights>
void BlockedFloatProduct(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                         float* y, int64_t y_stride, std::byte* scratch) {
  static_assert(kFloatPanelTokens % Tiles::kGroupTokens == 0 &&
                kFloatTileRows % Tiles::kGroupRows == 0);
  constexpr int64_t kGroupSums = Tiles::kGroupRows * 16;  // of one token
  constexpr int64_t kPanelSums = kFloatPanelRows * kFloatPanelTokens * 16;
  // Inputs of a panel of a single block: half of what sums take otherwise.
  constexpr int64_t kPanelInputs = kPanelSums / 2;
  const int64_t padded = (w.inner + 31) / 32 * 32;
  const bool waits = padded > kFloatBlock;
  auto* const floats = reinterpret_cast<float*>(scratch);
  float* const sums = floats + (waits ? 0 : kPanelInputs);
  float* const inputs = floats + (waits ? kPanelSums : 0);
  float* const tile = floats + kPanelSums + kFloatPanelTokens * kFloatBlock;
  const EvenGroups panels(
      tokens, waits ? kFloatPanelTokens
                    : kPanelInputs / padded / Tiles::kGroupTokens * Tiles::kGroupTokens);
  for (int64_t top = 0; top < w.rows; top += kFloatPanelRows) {
    const int64_t bottom = w.rows < top + kFloatPanelRows ? w.rows : top + kFloatPanelRows;
    const uint16_t* panel_x = x;
    float* panel_y = y;
    for (int64_t panel = 0; panel < panels.groups; ++panel) {
      const EvenGroups groups(panels.Size(panel), Tiles::kGroupTokens);
      for (int64_t k = 0; k < padded; k += kFloatBlock) {
        const int64_t block = padded - k < kFloatBlock ? padded - k : kFloatBlock;
        int64_t token = 0;
        for (int64_t g = 0; g < groups.groups; token += groups.Size(g++)) {
          Tiles::SeparateInputs(panel_x + token * x_stride + k, x_stride, groups.Size(g),
                                block / 32, inputs + token * block);
        }
        const Weights weights(w, k, block);
        for (int64_t row = top; row < bottom; row += kFloatTileRows) {
          const int64_t rows = bottom - row < kFloatTileRows ? bottom - row : kFloatTileRows;
          weights.Expand(row, rows, tile);
          // The next tile: the next rows, or the first ones of the next block, or none.
          const bool more_rows = row + rows < bottom, more = more_rows || k + block < padded;
          const int64_t next_row = more_rows ? row + rows : top;
          const int64_t next_k = more_rows ? k : k + block;
          const int64_t next_inputs =
              padded - next_k < kFloatBlock ? w.inner - next_k : kFloatBlock;
          TileFetcher fetcher(
              w.data + next_row * w.row_bytes + next_k * Weights::kBits / 8, w.row_bytes,
              !more                                ? 0
              : bottom - next_row < kFloatTileRows ? bottom - next_row
                                                   : kFloatTileRows,
              next_inputs * Weights::kBits / 8,
              groups.groups * ((rows + Tiles::kGroupRows - 1) / Tiles::kGroupRows) * (block / 32));
          token = 0;
          for (int64_t g = 0; g < groups.groups; token += groups.Size(g++)) {
            const int64_t size = groups.Size(g);
            for (int64_t r = 0; r < rows; r += Tiles::kGroupRows) {
              const int64_t group_row = row + r;
              Tiles::Product(
                  tile + r * block, inputs + token * block, size, block / 32, k == 0,
                  k + block == padded,
                  waits ? sums + ((group_row - top) / Tiles::kGroupRows * panels.Size(0) + token) *
                                     kGroupSums
                        : sums,
                  rows - r, panel_y + token * y_stride + group_row, y_stride, fetcher);
            }
          }
        }
      }
      panel_x += panels.Size(panel) * x_stride;
      panel_y += panels.Size(panel) * y_stride;
    }
  }
}

}  // namespace

}  // namespace toaster::kernels
