#include "model/cache_size.h"

#include <algorithm>

namespace toaster {
namespace {

constexpr int64_t kFloat = sizeof(float);

// Values and scores of up to `ratio` pending tokens; overlapping blocks are two heads wide and keep
// the first half of the previous block beside them.
int64_t TailBytes(int64_t ratio, int64_t width) {
  const bool overlaps = ratio == 4;
  const int64_t pending = ratio * (overlaps ? 2 : 1) * width;
  const int64_t previous = overlaps ? ratio * width : 0;
  return 2 * kFloat * (pending + previous);
}

}  // namespace

int64_t CacheEntryBytes(const Config& config) {
  const int64_t codes = config.head_dim - config.qk_rope_head_dim;
  const int64_t scales = (codes / 64 + 7) / 8 * 8;
  return codes + 2 * config.qk_rope_head_dim + scales;
}

int64_t IndexKeyBytes(const Config& config) {
  return config.index_head_dim / 2 + config.index_head_dim / 32;
}

CacheBytes BlockCacheBytes(const Config& config, int64_t block, int64_t tokens) {
  const int64_t ratio = config.ratio(block), entry = CacheEntryBytes(config);
  CacheBytes bytes;
  bytes.window = std::min(tokens, config.sliding_window) * entry;
  if (ratio == 0) return bytes;
  bytes.compressed = tokens / ratio * entry;
  bytes.tails = TailBytes(ratio, config.head_dim);
  if (ratio == 4) {
    bytes.compressed += tokens / ratio * IndexKeyBytes(config);
    bytes.tails += TailBytes(ratio, config.index_head_dim);
  }
  return bytes;
}

CacheBytes ModelCacheBytes(const Config& config, int64_t tokens, bool drafts) {
  CacheBytes bytes;
  const int64_t blocks = drafts ? config.total_blocks() : config.num_hidden_layers;
  for (int64_t block = 0; block < blocks; ++block) bytes += BlockCacheBytes(config, block, tokens);
  return bytes;
}

double CacheBytesPerToken(const Config& config) {
  double slope = 0;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const int64_t ratio = config.ratio(block);
    if (ratio == 0) continue;
    const int64_t grown = CacheEntryBytes(config) + (ratio == 4 ? IndexKeyBytes(config) : 0);
    slope += static_cast<double>(grown) / static_cast<double>(ratio);
  }
  return slope;
}

}  // namespace toaster
