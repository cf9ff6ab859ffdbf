#pragma once

// Weights from floats to the stored formats with power-of-two scales (section 11.2): what training
// does to its masters before each step, and what an export writes.

#include <cstdint>

namespace toaster {

/// E4M3 codes [rows, columns] and UE8M0 scales [ceil(rows/128), ceil(columns/128)], one per 128 x
/// 128 tile: the smallest power of two that keeps the tile within +-448.
void QuantiseTilesE4m3(const float* weights, int64_t rows, int64_t columns, uint8_t* codes,
                       uint8_t* scales);

/// Packed E2M1 codes [rows, columns/2] and UE8M0 scales [rows, columns/32]; columns is a multiple
/// of 32.
void QuantiseRowsE2m1(const float* weights, int64_t rows, int64_t columns, uint8_t* codes,
                      uint8_t* scales);

}  // namespace toaster
