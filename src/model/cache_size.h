#pragma once

// What a sequence costs in memory: the exact size of its cache in the compact, lossless form. A
// cached entry holds head_dim - r E4M3 codes, r BF16 rotary numbers and one scale byte per 64
// codes; an index key holds E2M1 codes and one scale byte per 32.

#include <cstdint>

#include "model/config.h"

namespace toaster {

/// Bytes of the cache of one sequence.
struct CacheBytes {
  int64_t compressed = 0;  ///< finished entries and index keys; grows with the sequence
  int64_t window = 0;      ///< entries of the last sliding_window tokens
  int64_t tails = 0;       ///< pending rows of the compressors, float; fixed

  int64_t total() const { return compressed + window + tails; }
  CacheBytes& operator+=(const CacheBytes& other) {
    compressed += other.compressed;
    window += other.window;
    tails += other.tails;
    return *this;
  }
  bool operator==(const CacheBytes&) const = default;
};

/// One entry of the window or of the compressed part: codes, rotary numbers and scales, the scales
/// padded to a multiple of eight bytes. 584 for a head size of 512.
int64_t CacheEntryBytes(const Config& config);

/// One key of the indexer: 68 for an index head size of 128.
int64_t IndexKeyBytes(const Config& config);

/// The cache of one block (main layers, then draft blocks) after `tokens` tokens.
CacheBytes BlockCacheBytes(const Config& config, int64_t block, int64_t tokens);

/// The cache of all main layers; with `drafts`, of the draft blocks too.
CacheBytes ModelCacheBytes(const Config& config, int64_t tokens, bool drafts);

/// What one more token adds in the long run: the slope of the compressed part of the main layers.
double CacheBytesPerToken(const Config& config);

}  // namespace toaster
