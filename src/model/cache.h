#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"

namespace toaster {

/// Pages of compressed rows cover this many tokens, so that a page of every layer kind spans the
/// same stretch of the sequence.
inline constexpr int64_t kCachePageTokens = 128;

/// What one block keeps of one sequence: the window, the compressed entries and indexer keys, the
/// compressors' tails. Compact in `official` numerics, floats in `fp32`.
/// Compressed rows grow as tokens arrive; nothing is reserved.
struct BlockCache {
  AlignedArray<uint8_t> window;  ///< ring: position p at row p mod sliding_window
  PagedRows entries;             ///< one per complete block of `ratio` tokens
  PagedRows keys;                ///< ratio 4 only
  CompressorTail tail;
  CompressorTail indexer_tail;

  BlockCache() = default;
  BlockCache(const Config& config, int64_t ratio, const Backend& backend);

  /// Copies the segment's entries (row i at position start + i) into the ring.
  void KeepWindow(const uint8_t* chunk, int64_t start, int64_t rows, int64_t row_bytes,
                  int64_t window_rows);
  int64_t allocated_bytes() const {
    return window.size() + entries.allocated_bytes() + keys.allocated_bytes() +
           tail.allocated_bytes() + indexer_tail.allocated_bytes();
  }
};

/// What a cache forgets as tokens are added: windows and compressors' tails. Compressed rows stay,
/// so their number says enough. Its size does not grow with the sequence.
struct CacheSnapshot {
  struct Block {
    AlignedArray<uint8_t> window;
    CompressorTail tail, indexer_tail;
    int64_t entries = 0, keys = 0;
  };
  std::vector<Block> blocks;
  int64_t length = 0;
  std::vector<int64_t> draft_lengths;
};

/// The cache of one sequence: a BlockCache per layer and draft block. Used by one thread at a time.
class SequenceCache {
 public:
  SequenceCache(const Config& config, const Backend& backend);

  BlockCache& block(int64_t index) { return blocks_[static_cast<size_t>(index)]; }
  const BlockCache& block(int64_t index) const { return blocks_[static_cast<size_t>(index)]; }
  /// Tokens that the main layers, and draft block `draft`, have seen.
  int64_t length() const { return length_; }
  int64_t draft_length(int64_t draft) const { return draft_lengths_[static_cast<size_t>(draft)]; }
  void Advance(int64_t tokens) { length_ += tokens; }
  void AdvanceDraft(int64_t draft, int64_t tokens) {
    draft_lengths_[static_cast<size_t>(draft)] += tokens;
  }

  /// A cache of its own that is equal to this one; compressed rows are shared until they differ.
  std::unique_ptr<SequenceCache> Fork() const;

  CacheSnapshot TakeSnapshot() const;
  /// Makes the cache what it was when it gave this snapshot, even if a forward pass was left
  /// between two layers. Since then tokens may have been added, and older snapshots restored.
  void Restore(const CacheSnapshot& snapshot);

  /// Whether a lazy page of it could not be read: nothing can go on from here.
  bool failed() const;
  int64_t allocated_bytes() const;
  /// The same, without pages that are in `counted` already; adds its own to it.
  int64_t AddBytes(std::unordered_set<const uint8_t*>& counted) const;
  /// XXH3-128 over everything the cache holds that later tokens can read. Two caches with equal
  /// digests continue equally.
  std::string DigestHex(const Config& config, const Backend& backend) const;

 private:
  SequenceCache() = default;

  std::vector<BlockCache> blocks_;
  int64_t length_ = 0;
  std::vector<int64_t> draft_lengths_;
};

}  // namespace toaster
