#include "engine/prefix_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/digest.h"

namespace toaster {

namespace {

constexpr size_t kRememberedEvictions = 64;

int64_t SharedTokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

std::string DigestOf(std::span<const int32_t> tokens) {
  Digest digest;
  digest.AddValues(tokens);
  return digest.Hex();
}

}  // namespace

int64_t PrefixCache::bytes() const {
  std::unordered_set<const uint8_t*> counted;
  int64_t bytes = 0;
  for (const Place& place : places_) {
    bytes += place.cache->AddBytes(counted) + static_cast<int64_t>(4 * place.tokens.size());
  }
  return bytes;
}

void PrefixCache::Keep(const std::string& owner, std::span<const int32_t> tokens,
                       const SequenceCache& cache) {
  for (Place& place : places_) {
    if (place.owner != owner || place.tokens.size() != tokens.size()) continue;
    if (!std::equal(tokens.begin(), tokens.end(), place.tokens.begin())) continue;
    place.last_use = ++uses_;
    return;
  }
  places_.push_back({owner, {tokens.begin(), tokens.end()}, cache.Fork(), ++uses_});
  MakeRoom();
}

// What a place saves is the tokens behind the longest other place that it goes on from. What it
// costs is much the same for all, since windows and tails outweigh the rows of a few thousand
// tokens. Its worth halves each time as many other uses have passed as there are places.
size_t PrefixCache::LeastWorth() const {
  size_t least = 0;
  double least_worth = -1;
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    int64_t before = 0;
    for (const Place& other : places_) {
      const auto length = static_cast<int64_t>(other.tokens.size());
      if (length > before && length < static_cast<int64_t>(place.tokens.size()) &&
          other.owner == place.owner && SharedTokens(other.tokens, place.tokens) == length) {
        before = length;
      }
    }
    const double age = static_cast<double>(uses_ - place.last_use) /
                       static_cast<double>(std::max<size_t>(1, places_.size()));
    const double worth =
        static_cast<double>(static_cast<int64_t>(place.tokens.size()) - before) * std::exp2(-age);
    if (least_worth < 0 || worth < least_worth) least = i, least_worth = worth;
  }
  return least;
}

void PrefixCache::MakeRoom() {
  while (!places_.empty() && bytes() > budget_) {
    const size_t least = LeastWorth();
    Place& place = places_[least];
    evicted_.push_back({std::move(place.owner), place.tokens.size(), DigestOf(place.tokens)});
    if (evicted_.size() > kRememberedEvictions) evicted_.pop_front();
    places_.erase(places_.begin() + static_cast<ptrdiff_t>(least));
  }
}

std::string PrefixCache::MissReason(const std::string& owner, std::span<const int32_t> prompt,
                                    int64_t found) const {
  // All but the last token was there.
  if (found + 1 == static_cast<int64_t>(prompt.size())) return "";
  for (const Evicted& evicted : evicted_) {
    if (evicted.owner != owner || evicted.tokens >= prompt.size() ||
        static_cast<int64_t>(evicted.tokens) <= found) {
      continue;
    }
    if (DigestOf(prompt.first(evicted.tokens)) == evicted.digest) {
      return fmt::format("the cache of the first {} tokens was given up for others",
                         evicted.tokens);
    }
  }
  int64_t shared = 0, foreign = 0;
  bool all_of_it = false;  // the nearest timeline ends where the shared part does
  for (const Place& place : places_) {
    const int64_t tokens = SharedTokens(place.tokens, prompt);
    if (place.owner != owner) {
      foreign = std::max(foreign, tokens);
    } else if (tokens > shared) {
      shared = tokens;
      all_of_it = tokens == static_cast<int64_t>(place.tokens.size());
    }
  }
  if (foreign > std::max(shared, found) && shared == 0) {
    return "the cache belongs to another user_id";
  }
  if (shared == 0) return places_.empty() ? "nothing is cached yet" : "nothing cached begins so";
  if (shared > found && !all_of_it) {
    return fmt::format(
        "token {} is the first that differs from what is cached; the last place kept before it is "
        "token {}",
        shared, found);
  }
  return "the rest is new";
}

PrefixCache::Hit PrefixCache::Find(const std::string& owner, std::span<const int32_t> prompt) {
  std::erase_if(places_, [](const Place& place) { return place.cache->failed(); });
  Place* best = nullptr;
  for (Place& place : places_) {
    if (place.owner != owner || place.tokens.size() >= prompt.size()) continue;
    if (best != nullptr && place.tokens.size() <= best->tokens.size()) continue;
    if (std::equal(place.tokens.begin(), place.tokens.end(), prompt.begin())) best = &place;
  }
  Hit hit;
  if (best != nullptr) {
    best->last_use = ++uses_;
    hit.tokens = static_cast<int64_t>(best->tokens.size());
    hit.cache = best->cache->Fork();
  }
  hit.miss_reason = MissReason(owner, prompt, hit.tokens);
  return hit;
}

}  // namespace toaster
