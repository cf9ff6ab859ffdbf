#include "model/cache.h"

#include <algorithm>
#include <cstring>

#include "base/digest.h"

namespace toaster {

namespace {

PagedRows RowsFor(int64_t ratio, int64_t row_bytes) {
  return PagedRows(row_bytes, std::max<int64_t>(1, kCachePageTokens / ratio));
}

CompressorTail TailFor(int64_t ratio, int64_t width) {
  CompressorTail tail;
  const int64_t columns = ratio == 4 ? 2 * width : width;
  for (Tensor* rows : {&tail.pending_values, &tail.pending_scores}) {
    rows->Reshape({ratio, columns});
    rows->Fill(0);
  }
  if (ratio == 4) {
    for (Tensor* rows : {&tail.previous_values, &tail.previous_scores}) {
      rows->Reshape({ratio, width});
      rows->Fill(0);
    }
  }
  return tail;
}

CompressorTail CopyOf(const CompressorTail& tail) {
  CompressorTail copy;
  copy.pending_values.CopyFrom(tail.pending_values);
  copy.pending_scores.CopyFrom(tail.pending_scores);
  copy.previous_values.CopyFrom(tail.previous_values);
  copy.previous_scores.CopyFrom(tail.previous_scores);
  return copy;
}

void AddTail(Digest& digest, const CompressorTail& tail, int64_t ratio, int64_t length) {
  const int64_t pending = length % ratio;
  const auto add = [&](const Tensor& rows, int64_t count) {
    if (rows.size() > 0)
      digest.AddValues(rows.values().first(static_cast<size_t>(count * rows.width())));
  };
  add(tail.pending_values, pending);
  add(tail.pending_scores, pending);
  if (length >= ratio && tail.previous_values.size() > 0) {
    add(tail.previous_values, ratio);
    add(tail.previous_scores, ratio);
  }
}

void AddRows(Digest& digest, const PagedRows& rows) {
  rows.NeedAll();
  for (int64_t i = 0; i < rows.size(); i += rows.RunLength(i)) {
    digest.Add(std::as_bytes(
        std::span(rows.Row(i), static_cast<size_t>(rows.RunLength(i) * rows.row_bytes()))));
  }
}

}  // namespace

BlockCache::BlockCache(const Config& config, int64_t ratio, const Backend& backend) {
  const EntryShape shape{config.head_dim - config.qk_rope_head_dim, config.qk_rope_head_dim};
  const int64_t row_bytes = backend.EntryRowBytes(shape);
  window.Resize(config.sliding_window * row_bytes);
  if (ratio == 0) return;
  entries = RowsFor(ratio, row_bytes);
  tail = TailFor(ratio, config.head_dim);
  if (ratio != 4) return;
  keys = RowsFor(ratio, backend.KeyRowBytes(config.index_head_dim));
  indexer_tail = TailFor(ratio, config.index_head_dim);
}

void BlockCache::KeepWindow(const uint8_t* chunk, int64_t start, int64_t rows, int64_t row_bytes,
                            int64_t window_rows) {
  for (int64_t i = std::max<int64_t>(0, rows - window_rows); i < rows; ++i) {
    std::memcpy(window.data() + (start + i) % window_rows * row_bytes, chunk + i * row_bytes,
                static_cast<size_t>(row_bytes));
  }
}

SequenceCache::SequenceCache(const Config& config, const Backend& backend)
    : draft_lengths_(static_cast<size_t>(config.num_nextn_predict_layers)) {
  for (int64_t i = 0; i < config.total_blocks(); ++i) {
    blocks_.emplace_back(config, config.ratio(i), backend);
  }
}

int64_t SequenceCache::AddBytes(std::unordered_set<const uint8_t*>& counted) const {
  int64_t bytes = 0;
  for (const BlockCache& block : blocks_) {
    bytes +=
        block.window.size() + block.tail.allocated_bytes() + block.indexer_tail.allocated_bytes();
    for (const PagedRows* rows : {&block.entries, &block.keys}) {
      for (const uint8_t* page : rows->pages()) {
        if (page != nullptr && counted.insert(page).second) bytes += rows->page_bytes();
      }
    }
  }
  return bytes;
}

std::unique_ptr<SequenceCache> SequenceCache::Fork() const {
  std::unique_ptr<SequenceCache> fork(new SequenceCache());
  fork->length_ = length_;
  fork->draft_lengths_ = draft_lengths_;
  for (const BlockCache& block : blocks_) {
    BlockCache& copy = fork->blocks_.emplace_back();
    copy.window.Resize(block.window.size());
    std::copy_n(block.window.data(), block.window.size(), copy.window.data());
    copy.entries = block.entries;
    copy.keys = block.keys;
    copy.tail = CopyOf(block.tail);
    copy.indexer_tail = CopyOf(block.indexer_tail);
  }
  return fork;
}

CacheSnapshot SequenceCache::TakeSnapshot() const {
  CacheSnapshot snapshot;
  snapshot.length = length_;
  snapshot.draft_lengths = draft_lengths_;
  for (const BlockCache& block : blocks_) {
    CacheSnapshot::Block& kept = snapshot.blocks.emplace_back();
    kept.window.Resize(block.window.size());
    std::copy_n(block.window.data(), block.window.size(), kept.window.data());
    kept.tail = CopyOf(block.tail);
    kept.indexer_tail = CopyOf(block.indexer_tail);
    kept.entries = block.entries.size();
    kept.keys = block.keys.size();
  }
  return snapshot;
}

void SequenceCache::Restore(const CacheSnapshot& snapshot) {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const CacheSnapshot::Block& kept = snapshot.blocks[i];
    BlockCache& block = blocks_[i];
    std::copy_n(kept.window.data(), kept.window.size(), block.window.data());
    block.tail = CopyOf(kept.tail);
    block.indexer_tail = CopyOf(kept.indexer_tail);
    block.entries.Truncate(kept.entries);
    block.keys.Truncate(kept.keys);
  }
  length_ = snapshot.length;
  draft_lengths_ = snapshot.draft_lengths;
}

bool SequenceCache::failed() const {
  return std::any_of(blocks_.begin(), blocks_.end(), [](const BlockCache& block) {
    return block.entries.failed() || block.keys.failed();
  });
}

int64_t SequenceCache::allocated_bytes() const {
  int64_t bytes = 0;
  for (const BlockCache& block : blocks_) bytes += block.allocated_bytes();
  return bytes;
}

std::string SequenceCache::DigestHex(const Config& config, const Backend& backend) const {
  const EntryShape shape{config.head_dim - config.qk_rope_head_dim, config.qk_rope_head_dim};
  const int64_t row_bytes = backend.EntryRowBytes(shape);
  Digest digest;
  for (int64_t i = 0; i < config.total_blocks(); ++i) {
    const BlockCache& block = blocks_[static_cast<size_t>(i)];
    const int64_t length =
        i < config.num_hidden_layers ? length_ : draft_length(i - config.num_hidden_layers);
    for (int64_t p = std::max<int64_t>(0, length - config.sliding_window); p < length; ++p) {
      digest.Add(
          std::as_bytes(std::span(block.window.data() + p % config.sliding_window * row_bytes,
                                  static_cast<size_t>(row_bytes))));
    }
    AddRows(digest, block.entries);
    AddRows(digest, block.keys);
    if (const int64_t ratio = config.ratio(i); ratio != 0) {
      AddTail(digest, block.tail, ratio, length);
      AddTail(digest, block.indexer_tail, ratio, length);
    }
  }
  return digest.Hex();
}

}  // namespace toaster
