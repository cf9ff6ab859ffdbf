#pragma once

// Included by kernel files: everything here is local to them.

#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

namespace {

/// E4M3 scales of the tile that `row` is in.
inline const uint8_t* E4m3Scales(const WeightRows& w, int64_t row) {
  return w.scales + row / kScaleTileRows * (w.inner / 128);
}

/// A product of E4M3 weights by kMultiply, which takes rows of one tile of scales.
template <auto kMultiply>
void ByScaleTiles(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                  float* y, int64_t y_stride, std::byte* scratch) {
  for (int64_t row = 0; row < w.rows; row += kScaleTileRows) {
    WeightRows tile = w;
    tile.data += row * w.row_bytes;
    tile.rows = w.rows - row < kScaleTileRows ? w.rows - row : kScaleTileRows;
    tile.scales = E4m3Scales(w, row);
    kMultiply(tile, x, x_stride, tokens, y + row, y_stride, scratch);
  }
}

}  // namespace

}  // namespace toaster::kernels
