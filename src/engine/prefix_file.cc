#include "engine/prefix_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace toaster {

namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

constexpr std::string_view kRowsMagic = "TOASTROW", kPlaceMagic = "TOASTPLC";
constexpr uint32_t kVersion = 1;
constexpr size_t kMagicBytes = 8;
constexpr uint32_t kMostSections = 1 << 16;

uint64_t Hash64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

/// XXH3-128 of what is added to it.
class KeyHash {
 public:
  template <typename T>
  KeyHash& Add(std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  KeyHash& Add(std::string_view text) { return Add(std::span(text)); }
  KeyHash& Add(const PrefixKey& key) {
    const uint64_t halves[] = {key.low, key.high};
    return Add(std::span<const uint64_t>(halves));
  }
  KeyHash& Add(uint64_t number) { return Add(std::span<const uint64_t>(&number, 1)); }
  PrefixKey Key() const {
    const XXH128_hash_t hash = XXH3_128bits(bytes_.data(), bytes_.size());
    return {hash.low64, hash.high64};
  }

 private:
  std::vector<std::byte> bytes_;
};

class Writer {
 public:
  void AddBytes(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  template <typename T>
  void Add(T value) {
    AddBytes(&value, sizeof(value));
  }
  void Add(const PrefixKey& key) {
    Add(key.low);
    Add(key.high);
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what a Writer wrote; past the end it is not ok() and gives zeros.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  void ReadBytes(void* data, size_t size) {
    if (size == 0) return;  // `data` may be null
    if (size > bytes_.size() - at_) {
      ok_ = false;
      std::memset(data, 0, size);
      return;
    }
    std::memcpy(data, bytes_.data() + at_, size);
    at_ += size;
  }
  template <typename T>
  T Read() {
    T value{};
    ReadBytes(&value, sizeof(value));
    return value;
  }
  PrefixKey ReadKey() {
    PrefixKey key;
    key.low = Read<uint64_t>();
    key.high = Read<uint64_t>();
    return key;
  }
  /// Whether `count` items of `size` bytes can follow.
  bool Has(uint64_t count, uint64_t size) {
    if (!ok_ || count > (bytes_.size() - at_) / size) ok_ = false;
    return ok_;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return at_ == bytes_.size(); }
  size_t at() const { return at_; }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

std::string CheckStart(Reader& reader, std::string_view magic) {
  char start[kMagicBytes];
  reader.ReadBytes(start, sizeof(start));
  if (std::string_view(start, sizeof(start)) != magic) return "it does not begin as it should";
  const auto version = reader.Read<uint32_t>();
  if (version != kVersion) return fmt::format("its version is {}, not {}", version, kVersion);
  return "";
}

size_t RowsHeaderBytes(size_t sections) {
  return kMagicBytes + 4 + 4 + 8 + 8 + 16 + 4 * kCachePageTokens + 32 * sections + 8;
}

// What a block keeps in a place: the parts in the order of the file. `part(data, bytes)` is told
// each stretch of memory; `rows(list, count)` each list of rows with how many belong to the place.
template <typename Block, typename Part, typename Rows>
void VisitPlace(const Config& config, int64_t index, int64_t length, int64_t entry_bytes,
                Block& block, const Part& part, const Rows& rows) {
  for (int64_t p = std::max<int64_t>(0, length - config.sliding_window); p < length; ++p) {
    part(block.window.data() + p % config.sliding_window * entry_bytes, entry_bytes);
  }
  const int64_t ratio = config.ratio(index);
  if (ratio == 0) return;
  const bool draft = index >= config.num_hidden_layers;
  const int64_t grouped = draft ? 0 : length / kCachePageTokens * (kCachePageTokens / ratio);
  rows(block.entries, length / ratio - grouped);
  if (ratio == 4) rows(block.keys, length / ratio - grouped);
  const auto tail = [&](auto& tail_rows) {
    const auto some = [&](auto& tensor, int64_t count) {
      if (tensor.size() > 0) part(tensor.data(), 4 * count * tensor.width());
    };
    some(tail_rows.pending_values, length % ratio);
    some(tail_rows.pending_scores, length % ratio);
    if (length < ratio) return;
    some(tail_rows.previous_values, ratio);
    some(tail_rows.previous_scores, ratio);
  };
  tail(block.tail);
  if (ratio == 4) tail(block.indexer_tail);
}

int64_t BlockLength(const Config& config, int64_t index, const SequenceCache& cache) {
  return index < config.num_hidden_layers ? cache.length()
                                          : cache.draft_length(index - config.num_hidden_layers);
}

EntryShape ShapeOf(const Config& config) {
  return {config.head_dim - config.qk_rope_head_dim, config.qk_rope_head_dim};
}

}  // namespace

std::string PrefixKey::Hex() const { return fmt::format("{:016x}{:016x}", high, low); }

PrefixKey PrefixRoot(std::string_view identity, std::string_view owner) {
  KeyHash hash;
  for (const std::string_view text : {std::string_view("toaster prefix 1"), identity, owner}) {
    hash.Add(uint64_t{text.size()}).Add(text);
  }
  return hash.Key();
}

std::vector<PrefixKey> GroupKeys(const PrefixKey& root, std::span<const int32_t> tokens) {
  std::vector<PrefixKey> keys;
  PrefixKey last = root;
  for (; tokens.size() >= kCachePageTokens; tokens = tokens.subspan(kCachePageTokens)) {
    last = KeyHash().Add(last).Add(tokens.first(kCachePageTokens)).Key();
    keys.push_back(last);
  }
  return keys;
}

PrefixKey PlaceKey(const PrefixKey& root, std::span<const PrefixKey> groups,
                   std::span<const int32_t> tokens) {
  const size_t whole = tokens.size() / kCachePageTokens;
  return KeyHash()
      .Add("place")
      .Add(whole == 0 ? root : groups[whole - 1])
      .Add(tokens.subspan(whole * kCachePageTokens))
      .Add(uint64_t{tokens.size()})
      .Key();
}

RowsHeader RowsLayout(const Config& config, const Backend& backend) {
  RowsHeader layout;
  std::vector<RowsSection> lazy;
  const auto entry_bytes = static_cast<uint32_t>(backend.EntryRowBytes(ShapeOf(config)));
  const auto key_bytes = static_cast<uint32_t>(backend.KeyRowBytes(config.index_head_dim));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const int64_t ratio = config.ratio(i);
    if (ratio == 0) continue;
    const auto block = static_cast<uint32_t>(i);
    const auto rows = static_cast<uint32_t>(kCachePageTokens / ratio);
    if (ratio == 4) {
      layout.sections.push_back({block, 1, 0, key_bytes, rows, 0});
      lazy.push_back({block, 0, 0, entry_bytes, rows, 0});
    } else {
      layout.sections.push_back({block, 0, 0, entry_bytes, rows, 0});
    }
  }
  const size_t eager = layout.sections.size();
  layout.sections.insert(layout.sections.end(), lazy.begin(), lazy.end());
  uint64_t offset = RowsHeaderBytes(layout.sections.size());
  layout.eager_bytes = offset;
  for (size_t i = 0; i < layout.sections.size(); ++i) {
    layout.sections[i].offset = offset;
    offset += layout.sections[i].size();
    if (i < eager) layout.eager_bytes = offset;
  }
  layout.file_bytes = offset;
  return layout;
}

std::vector<std::byte> EncodeRows(RowsHeader layout, const PrefixKey& key, int64_t group,
                                  std::span<const int32_t> tokens, const SequenceCache& cache) {
  std::vector<std::byte> file(layout.file_bytes);
  for (RowsSection& section : layout.sections) {
    const BlockCache& block = cache.block(section.block);
    const PagedRows& rows = section.keys != 0 ? block.keys : block.entries;
    const int64_t first = group * section.rows;
    CHECK(rows.rows_per_page() == section.rows && first + section.rows <= rows.size(),
          "{} rows of {}", rows.size(), section.rows);
    rows.Need(first);
    const std::span<std::byte> bytes = std::span(file).subspan(section.offset, section.size());
    std::memcpy(bytes.data(), rows.Row(first), bytes.size());
    section.hash = Hash64(bytes);
  }
  Writer writer;
  writer.AddBytes(kRowsMagic.data(), kMagicBytes);
  writer.Add(kVersion);
  writer.Add(static_cast<uint32_t>(layout.sections.size()));
  writer.Add(layout.file_bytes);
  writer.Add(layout.eager_bytes);
  writer.Add(key);
  writer.AddBytes(tokens.data(), tokens.size_bytes());
  for (const RowsSection& section : layout.sections) {
    writer.Add(section.block);
    writer.Add(section.keys);
    writer.Add(section.offset);
    writer.Add(section.row_bytes);
    writer.Add(section.rows);
    writer.Add(section.hash);
  }
  writer.Add(Hash64(writer.bytes()));
  std::copy(writer.bytes().begin(), writer.bytes().end(), file.begin());
  return file;
}

std::string DecodeRowsHeader(std::span<const std::byte> bytes, RowsHeader& header) {
  Reader reader(bytes);
  if (std::string wrong = CheckStart(reader, kRowsMagic); !wrong.empty()) return wrong;
  const auto sections = reader.Read<uint32_t>();
  header.file_bytes = reader.Read<uint64_t>();
  header.eager_bytes = reader.Read<uint64_t>();
  header.key = reader.ReadKey();
  reader.ReadBytes(header.tokens.data(), sizeof(header.tokens));
  if (sections > kMostSections || !reader.Has(sections, 32)) return "its header is cut off";
  header.sections.clear();
  for (uint32_t i = 0; i < sections; ++i) {
    RowsSection& section = header.sections.emplace_back();
    section.block = reader.Read<uint32_t>();
    section.keys = reader.Read<uint32_t>();
    section.offset = reader.Read<uint64_t>();
    section.row_bytes = reader.Read<uint32_t>();
    section.rows = reader.Read<uint32_t>();
    section.hash = reader.Read<uint64_t>();
  }
  const size_t end = reader.at();
  const auto hash = reader.Read<uint64_t>();
  if (!reader.ok()) return "its header is cut off";
  if (hash != Hash64(bytes.first(end))) return "its header has changed";
  for (const RowsSection& section : header.sections) {
    if (section.offset > header.file_bytes || section.size() > header.file_bytes - section.offset) {
      return "a section lies outside";
    }
  }
  return header.eager_bytes > header.file_bytes ? "a section lies outside" : "";
}

bool IsIntact(const RowsSection& section, std::span<const std::byte> bytes) {
  return bytes.size() == section.size() && Hash64(bytes) == section.hash;
}

std::string CheckRows(std::span<const std::byte> file) {
  RowsHeader header;
  if (std::string wrong = DecodeRowsHeader(file, header); !wrong.empty()) return wrong;
  if (file.size() != header.file_bytes) {
    return fmt::format("it has {} bytes and should have {}", file.size(), header.file_bytes);
  }
  for (const RowsSection& section : header.sections) {
    if (!IsIntact(section, file.subspan(section.offset, section.size()))) {
      return fmt::format("the {} of block {} have changed", section.keys ? "keys" : "entries",
                         section.block);
    }
  }
  return "";
}

std::vector<std::byte> EncodePlace(const Config& config, const Backend& backend,
                                   const PrefixKey& key, std::span<const PrefixKey> groups,
                                   std::span<const int32_t> tokens, const SequenceCache& cache) {
  const int64_t entry_bytes = backend.EntryRowBytes(ShapeOf(config));
  Writer payload;
  for (int64_t i = 0; i < config.total_blocks(); ++i) {
    VisitPlace(
        config, i, BlockLength(config, i, cache), entry_bytes, cache.block(i),
        [&](const auto* data, int64_t bytes) {
          payload.AddBytes(data, static_cast<size_t>(bytes));
        },
        [&](const PagedRows& rows, int64_t count) {
          for (int64_t row = rows.size() - count; row < rows.size(); ++row) {
            rows.Need(row);
            payload.AddBytes(rows.Row(row), static_cast<size_t>(rows.row_bytes()));
          }
        });
  }
  const size_t whole = tokens.size() / kCachePageTokens;
  const auto rest = tokens.subspan(whole * kCachePageTokens);
  const auto drafts = static_cast<uint32_t>(config.total_blocks() - config.num_hidden_layers);
  const size_t header_bytes =
      kMagicBytes + 4 + 4 + 8 + 8 + 16 + 16 * whole + rest.size_bytes() + 8 * drafts + 16;
  Writer writer;
  writer.AddBytes(kPlaceMagic.data(), kMagicBytes);
  writer.Add(kVersion);
  writer.Add(drafts);
  writer.Add(uint64_t{header_bytes + payload.bytes().size()});
  writer.Add(uint64_t{tokens.size()});
  writer.Add(key);
  for (const PrefixKey& group : groups.first(whole)) writer.Add(group);
  writer.AddBytes(rest.data(), rest.size_bytes());
  for (int64_t draft = 0; draft < drafts; ++draft) writer.Add(cache.draft_length(draft));
  writer.Add(Hash64(writer.bytes()));
  writer.Add(Hash64(payload.bytes()));
  writer.AddBytes(payload.bytes().data(), payload.bytes().size());
  return std::move(writer.bytes());
}

std::string DecodePlace(std::span<const std::byte> file, PlaceHeader& header) {
  Reader reader(file);
  if (std::string wrong = CheckStart(reader, kPlaceMagic); !wrong.empty()) return wrong;
  const auto drafts = reader.Read<uint32_t>();
  const auto file_bytes = reader.Read<uint64_t>();
  const auto tokens = reader.Read<uint64_t>();
  header.key = reader.ReadKey();
  const uint64_t whole = tokens / kCachePageTokens, rest = tokens % kCachePageTokens;
  if (!reader.Has(whole, 16)) return "its header is cut off";
  header.tokens = static_cast<int64_t>(tokens);
  header.groups.resize(whole);
  for (PrefixKey& group : header.groups) group = reader.ReadKey();
  header.rest.resize(rest);
  reader.ReadBytes(header.rest.data(), 4 * rest);
  if (!reader.Has(drafts, 8)) return "its header is cut off";
  header.draft_lengths.resize(drafts);
  for (int64_t& length : header.draft_lengths) length = reader.Read<int64_t>();
  const size_t end = reader.at();
  const auto hash = reader.Read<uint64_t>(), payload_hash = reader.Read<uint64_t>();
  if (!reader.ok()) return "its header is cut off";
  if (hash != Hash64(file.first(end))) return "its header has changed";
  if (file.size() != file_bytes) {
    return fmt::format("it has {} bytes and should have {}", file.size(), file_bytes);
  }
  header.bytes = reader.at();
  return payload_hash == Hash64(file.subspan(header.bytes)) ? "" : "its content has changed";
}

std::string RestorePlace(const Config& config, const Backend& backend,
                         std::span<const std::byte> file, const PlaceHeader& header,
                         SequenceCache& cache) {
  if (static_cast<int64_t>(header.draft_lengths.size()) !=
      config.total_blocks() - config.num_hidden_layers) {
    return "it is of another model";
  }
  cache.Advance(header.tokens);
  for (size_t i = 0; i < header.draft_lengths.size(); ++i) {
    cache.AdvanceDraft(static_cast<int64_t>(i), header.draft_lengths[i]);
  }
  Reader reader(file.subspan(header.bytes));
  const int64_t entry_bytes = backend.EntryRowBytes(ShapeOf(config));
  for (int64_t i = 0; i < config.total_blocks() && reader.ok(); ++i) {
    VisitPlace(
        config, i, BlockLength(config, i, cache), entry_bytes, cache.block(i),
        [&](auto* data, int64_t bytes) { reader.ReadBytes(data, static_cast<size_t>(bytes)); },
        [&](PagedRows& rows, int64_t count) {
          if (!reader.Has(static_cast<uint64_t>(count), static_cast<uint64_t>(rows.row_bytes())))
            return;
          for (int64_t row = 0; row < count; ++row) {
            reader.ReadBytes(rows.Append(), static_cast<size_t>(rows.row_bytes()));
          }
        });
  }
  return reader.ok() && reader.at_end() ? "" : "it is of another model";
}

}  // namespace toaster
