#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/prefix_directory.h"
#include "engine/running_model.h"

namespace toaster {

/// A piece of a stored prefix turned out to be damaged while it was in use. It has been named and
/// removed; the cache that needed it is of no use, and its tokens have to be computed again.
class PrefixDamage : public Error {
 public:
  using Error::Error;
};

/// Caches on disk, so that a prefix outlives the process: places to go on from, in files that
/// several of them share (docs/formats/prefix_store.md). A cache that comes back is equal to the
/// one that was stored, bit by bit, or it does not come back: whatever is damaged is named,
/// removed, and found no more. Entries of ratio 4 are read when attention first selects them. One
/// thread.
class PrefixStore {
 public:
  /// The model is borrowed. Throws Error(kIo) if the directory cannot be used.
  PrefixStore(PrefixStoreOptions options, RunningModel& running);

  struct Hit {
    int64_t tokens = 0;                                ///< 0: nothing
    std::unique_ptr<SequenceCache> cache;              ///< null if nothing
    std::shared_ptr<std::atomic<int64_t>> bytes_read;  ///< for it; grows as it is used
  };
  /// The longest place that `prompt` begins with, longer than `above`; the prompt's last token is
  /// left to compute.
  Hit Find(const std::string& owner, std::span<const int32_t> prompt, int64_t above);

  /// Stores the place where `cache` stands, behind `tokens`, if it is worth it. Disks that fail are
  /// noted, not thrown. Returns the bytes written.
  int64_t Put(const std::string& owner, std::span<const int32_t> tokens,
              const SequenceCache& cache);

  /// Tokens between places of a long prompt that are worth their bytes: windows and tails then
  /// are a fraction of the rows between them. A multiple of 128.
  int64_t spacing() const { return spacing_; }
  PrefixDirectory& directory() { return *directory_; }

 private:
  bool AppendGroup(const PrefixKey& key, std::span<const int32_t> tokens, SequenceCache& cache,
                   const std::shared_ptr<std::atomic<int64_t>>& bytes_read);

  const Config& config_;
  const Backend& backend_;
  std::string identity_;
  RowsHeader layout_;
  int64_t spacing_ = 0;
  std::shared_ptr<PrefixDirectory> directory_;
};

}  // namespace toaster
