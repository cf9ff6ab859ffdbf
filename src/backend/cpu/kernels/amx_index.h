#pragma once

// The indexer's scores by AMX: the integer products of 16 keys with 16 heads are one instruction
// for each 64 numbers, so that what follows them is most of the work. Included by avx512_amx.cc
// only.

#include "backend/cpu/kernels/amx_tiles.h"
#include "backend/cpu/kernels/avx512_folded_keys.h"
#include "backend/cpu/kernels/avx512_index.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/key_cursor.h"

namespace toaster::kernels::amx {

namespace {

constexpr int kTileKeys = 16;
constexpr int64_t kTileWidth = 64;  // numbers of a head that a tile holds

// Tile registers: sums [key, head]; keys [key, 64] and heads [64/4, head, 4]; the same of the 32
// numbers left of a width that 64 does not divide. The instructions want their numbers as text.
inline void SetTileShapes() {
  TileShapes shapes;
  shapes.row_bytes[3] = 32;
  shapes.rows[4] = 8;
  shapes.Load();
}

/// Dots of 16 keys with the 16 heads from `head` on, [key, head].
inline void Multiply(const FoldedIndexQuery& query, int64_t padded_heads, int64_t width,
                     int64_t head, const uint8_t (&keys)[kTileKeys][kMaxIndexWidth],
                     int32_t* sums) {
  WrittenForTiles(keys);
  const int64_t step = padded_heads * 4;
  const int8_t* codes = query.codes + head * 4;
  _tile_zero(0);
  int64_t k = 0;
  for (; k + kTileWidth <= width; k += kTileWidth) {
    _tile_loadd(1, keys[0] + k, kMaxIndexWidth);
    _tile_loadd(2, codes + k / 4 * step, step);
    _tile_dpbssd(0, 1, 2);
  }
  if (k < width) {
    _tile_loadd(3, keys[0] + k, kMaxIndexWidth);
    _tile_loadd(4, codes + k / 4 * step, step);
    _tile_dpbssd(0, 3, 4);
  }
  _tile_stored(0, sums, 64);
}

/// Sixteen keys with signed codes.
struct KeyTile {
  avx512::FoldedKeys<kTileKeys> folded;
  const uint8_t* keys[kTileKeys];
  bool folds;

  void Fill(KeyCursor& cursor, int64_t width) {
    cursor.Next(keys);  // the last key fills up the tile
    folds = folded.Unpack(keys, width, avx512::SignedCodes()) == 0;
  }
};

/// Adds the terms of 16 heads to the lanes of the keys; of eight keys, i and i + 4 together.
inline void AddTileTerms(const int32_t* sums, const float* weights,
                         avx512::LanePair (&lanes)[2][4]) {
  const avx512::TermWeights term_weights(weights);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int32_t* row = sums + (8 * half + i) * 16;
      avx512::AddTerms(_mm512_load_si512(row), _mm512_load_si512(row + 4 * 16), term_weights,
                       lanes[half][i]);
    }
  }
}

void IndexScores(const IndexQuery& query, const KeyPages& keys, int64_t count, float* out) {
  if (query.folded.codes == nullptr || count == 0) {
    avx512::IndexScores(query, keys, count, out);
    return;
  }
  const int64_t width = query.width;
  KeyCursor cursor(keys, count, width / 2 + width / 32);
  SetTileShapes();
  // The products of the next 16 heads, and the unpacking of the next keys, run beside the terms of
  // these.
  KeyTile tiles[2];
  alignas(64) int32_t sums[2][kTileKeys * 16];
  tiles[0].Fill(cursor, width);
  for (int64_t first = 0, turn = 0; first < count; first += kTileKeys, ++turn) {
    const KeyTile& tile = tiles[turn % 2];
    const auto multiply = [&](int64_t head) {
      Multiply(query.folded, query.padded_heads, width, head, tile.folded.codes,
               sums[head / 16 % 2]);
    };
    multiply(0);
    if (first + kTileKeys < count) tiles[(turn + 1) % 2].Fill(cursor, width);
    avx512::LanePair lanes[2][4];
    for (int64_t head = 0; head < query.padded_heads && tile.folds; head += 16) {
      if (head + 16 < query.padded_heads) multiply(head + 16);
      AddTileTerms(sums[head / 16 % 2], query.folded.weights + head, lanes);
    }
    for (int half = 0; half < 2; ++half) {
      const __m256 scores =
          tile.folds ? avx512::FinishScores(avx512::FoldPairs(lanes[half]),
                                            _mm256_load_ps(tile.folded.scales + 8 * half))
                     : avx512::ScoreFoldedKeys(query, tile.keys + 8 * half);
      const int64_t at = first + 8 * half;
      if (at < count) _mm256_mask_storeu_ps(out + at, avx512::FirstOfEight(count - at), scores);
    }
  }
  _tile_release();
}

}  // namespace

}  // namespace toaster::kernels::amx
