#pragma once

// The two kinds of files of the prefix store (docs/formats/prefix_store.md): rows, the compressed
// rows of 128 tokens, and places, what else a cache holds. Bytes in memory only; nothing here
// touches a disk.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/cache.h"

namespace toaster {

/// A content address: the XXH3-128 of what it stands for.
struct PrefixKey {
  uint64_t low = 0, high = 0;
  bool operator==(const PrefixKey&) const = default;
  auto operator<=>(const PrefixKey&) const = default;  // NOLINT(modernize-use-nullptr)
  /// 32 hexadecimal digits.
  std::string Hex() const;
};

/// Where the keys of an owner's prefixes begin. `identity` names all that decides a cache's bits
/// besides tokens.
PrefixKey PrefixRoot(std::string_view identity, std::string_view owner);
/// The keys of the whole groups of kCachePageTokens that `tokens` begins with.
std::vector<PrefixKey> GroupKeys(const PrefixKey& root, std::span<const int32_t> tokens);
/// The key of the place behind `tokens`, of which `groups` are at least the whole groups' keys.
PrefixKey PlaceKey(const PrefixKey& root, std::span<const PrefixKey> groups,
                   std::span<const int32_t> tokens);

/// One layer's rows in a rows file.
struct RowsSection {
  uint32_t block = 0;
  uint32_t keys = 0;  ///< 1: indexer keys, 0: entries
  uint64_t offset = 0;
  uint32_t row_bytes = 0, rows = 0;
  uint64_t hash = 0;
  uint64_t size() const { return uint64_t{row_bytes} * rows; }
};

struct RowsHeader {
  uint64_t file_bytes = 0;
  uint64_t eager_bytes = 0;  ///< from the beginning: what is to be read at once
  PrefixKey key;
  std::array<int32_t, kCachePageTokens> tokens = {};
  std::vector<RowsSection> sections;
};

/// The sections that a cache of this model has, with places and without hashes; sizes likewise.
RowsHeader RowsLayout(const Config& config, const Backend& backend);

/// The file of group `group` of `cache`, whose tokens are `tokens`. Reads lazy pages, which throws.
std::vector<std::byte> EncodeRows(RowsHeader layout, const PrefixKey& key, int64_t group,
                                  std::span<const int32_t> tokens, const SequenceCache& cache);

/// Decodes a header from the first bytes of a file, at least its `eager_bytes` unless the file is
/// shorter. Returns what is wrong with it, or "". Sections lie within the file.
std::string DecodeRowsHeader(std::span<const std::byte> bytes, RowsHeader& header);
/// Whether these are the section's bytes.
bool IsIntact(const RowsSection& section, std::span<const std::byte> bytes);
/// Examines a whole file; returns what is wrong with it, or "".
std::string CheckRows(std::span<const std::byte> file);

struct PlaceHeader {
  int64_t tokens = 0;
  PrefixKey key;
  std::vector<PrefixKey> groups;
  std::vector<int32_t> rest;  ///< the tokens behind the whole groups
  std::vector<int64_t> draft_lengths;
  size_t bytes = 0;  ///< of the header
};

/// The file of the place where `cache` stands. The tokens' number is the cache's length.
std::vector<std::byte> EncodePlace(const Config& config, const Backend& backend,
                                   const PrefixKey& key, std::span<const PrefixKey> groups,
                                   std::span<const int32_t> tokens, const SequenceCache& cache);
/// Decodes and checks a whole file. Returns what is wrong with it, or "".
std::string DecodePlace(std::span<const std::byte> file, PlaceHeader& header);
/// Fills `cache`, in which the pages of the whole groups are, with what the checked `file` holds.
/// Returns what is wrong, or "".
std::string RestorePlace(const Config& config, const Backend& backend,
                         std::span<const std::byte> file, const PlaceHeader& header,
                         SequenceCache& cache);

}  // namespace toaster
