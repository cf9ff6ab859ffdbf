#pragma once

// What the kernels that use AMX share. Included by them only.

#include <immintrin.h>

#include <cstdint>

namespace toaster::kernels::amx {

namespace {

/// Tells the compiler that an instruction reads memory it was not told of: GCC's intrinsics leave
/// out what a tile is loaded from, and most of what the shapes are.
inline void WrittenForTiles(const void* memory) { asm volatile("" ::"r"(memory) : "memory"); }

/// What ldtilecfg reads: sixteen rows of 64 bytes in each of the eight tile registers, unless
/// changed.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};

  void Load() const {
    WrittenForTiles(this);
    _tile_loadconfig(this);
  }
};

// Multiply-adds in tile registers, for measuring the limits of the machine.
int64_t SpinInt8(int64_t rounds, float* sink) {
  TileShapes().Load();
  alignas(64) int32_t sums[16 * 16] = {};
  sums[0] = static_cast<int32_t>(*sink);
  WrittenForTiles(sums);
  _tile_loadd(1, sums, 64);
  _tile_loadd(2, sums, 64);
  _tile_zero(0);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  const int64_t steps = rounds / 64;  // as long as the other spins, about
  for (int64_t step = 0; step < steps; ++step) {
    _tile_dpbssd(0, 1, 2);
    _tile_dpbssd(5, 1, 2);
    _tile_dpbssd(6, 1, 2);
    _tile_dpbssd(7, 1, 2);
  }
  _tile_stored(0, sums, 64);
  _tile_release();
  *sink += static_cast<float>(sums[0]);
  return steps * 4 * 2 * 16 * 16 * 64;
}

}  // namespace

}  // namespace toaster::kernels::amx
