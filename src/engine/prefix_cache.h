#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/cache.h"

namespace toaster {

/// Places in timelines from which a sequence can go on: tokens, and the cache as it stands after
/// them. Windows and compressor tails exist at a place only, so a prefix is reused up to a kept
/// place; compressed rows are shared between the places of a timeline
/// and what goes on from them. Owners never see each other's. One thread.
class PrefixCache {
 public:
  /// Keeps the places within `budget` bytes, by giving up those that are worth least.
  explicit PrefixCache(int64_t budget) : budget_(budget) {}

  /// Keeps a copy of `cache`, which stands after `tokens`.
  void Keep(const std::string& owner, std::span<const int32_t> tokens, const SequenceCache& cache);

  struct Hit {
    int64_t tokens = 0;                    ///< of the prompt that are in `cache`
    std::unique_ptr<SequenceCache> cache;  ///< null if there is none
    std::string miss_reason;               ///< why it is no more; empty: it is all that can be
  };
  /// The longest place that `prompt` begins with; its last token is always left to compute.
  Hit Find(const std::string& owner, std::span<const int32_t> prompt);

  /// Pages that several places share count once.
  int64_t bytes() const;
  int64_t places() const { return static_cast<int64_t>(places_.size()); }

 private:
  struct Place {
    std::string owner;
    std::vector<int32_t> tokens;
    std::unique_ptr<SequenceCache> cache;
    uint64_t last_use = 0;
  };
  struct Evicted {
    std::string owner;
    size_t tokens = 0;
    std::string digest;
  };

  std::string MissReason(const std::string& owner, std::span<const int32_t> prompt,
                         int64_t found) const;
  void MakeRoom();
  size_t LeastWorth() const;

  int64_t budget_;
  uint64_t uses_ = 0;
  std::vector<Place> places_;
  std::deque<Evicted> evicted_;  ///< the latest ones, to tell why a prefix is not there
};

}  // namespace toaster
