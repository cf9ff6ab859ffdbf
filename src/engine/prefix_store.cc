#include "engine/prefix_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/model_identity.h"
#include "model/cache_size.h"

namespace toaster {

namespace {

// A place's windows and tails may cost this share of the rows behind the one before.
constexpr int64_t kRowsPerPlaceBytes = 8;

/// A section of a rows file that is read when its rows are needed.
class StoredPage : public LazyPage {
 public:
  StoredPage(std::shared_ptr<PrefixDirectory> directory, const PrefixKey& key,
             const RowsSection& section, std::shared_ptr<std::atomic<int64_t>> bytes_read)
      : directory_(std::move(directory)),
        key_(key),
        section_(section),
        bytes_read_(std::move(bytes_read)) {}

 private:
  std::shared_ptr<uint8_t[]> Load() override {
    const auto path = directory_->RowsPath(key_);
    int reason = 0;
    const auto bytes =
        directory_->Read(path, static_cast<int64_t>(section_.offset), section_.size(), reason);
    *bytes_read_ += static_cast<int64_t>(bytes.size());
    if (reason != 0 || !IsIntact(section_, bytes)) {
      const std::string what =
          reason != 0 ? std::string(std::strerror(reason))
                      : fmt::format("the entries of block {} have changed", section_.block);
      if (reason != ENOENT) directory_->RemoveDamaged(path, what);
      throw PrefixDamage(ErrorCode::kIo, fmt::format("{}: {}; ask again", path.string(), what));
    }
    auto rows = std::make_shared<uint8_t[]>(bytes.size());
    std::memcpy(rows.get(), bytes.data(), bytes.size());
    return rows;
  }

  std::shared_ptr<PrefixDirectory> directory_;
  PrefixKey key_;
  RowsSection section_;
  std::shared_ptr<std::atomic<int64_t>> bytes_read_;
};

bool SameLayout(const RowsHeader& a, const RowsHeader& b) {
  return a.file_bytes == b.file_bytes && a.eager_bytes == b.eager_bytes &&
         std::equal(a.sections.begin(), a.sections.end(), b.sections.begin(), b.sections.end(),
                    [](const RowsSection& x, const RowsSection& y) {
                      return x.block == y.block && x.keys == y.keys && x.offset == y.offset &&
                             x.row_bytes == y.row_bytes && x.rows == y.rows;
                    });
}

}  // namespace

PrefixStore::PrefixStore(PrefixStoreOptions options, RunningModel& running)
    : config_(running.config()),
      backend_(running.backend()),
      identity_(fmt::format("{} numerics {}", ModelIdentity(running.loaded()),
                            static_cast<int>(running.backend().numerics()))),
      layout_(RowsLayout(running.config(), running.backend())),
      directory_(std::make_shared<PrefixDirectory>(std::move(options))) {
  const CacheBytes bytes = ModelCacheBytes(config_, config_.sliding_window, false);
  const double per_token = std::max(1.0, CacheBytesPerToken(config_));
  const auto groups = static_cast<int64_t>(static_cast<double>(kRowsPerPlaceBytes * bytes.window) /
                                           per_token / kCachePageTokens);
  spacing_ = (groups + 1) * kCachePageTokens;
}

bool PrefixStore::AppendGroup(const PrefixKey& key, std::span<const int32_t> tokens,
                              SequenceCache& cache,
                              const std::shared_ptr<std::atomic<int64_t>>& bytes_read) {
  const auto path = directory_->RowsPath(key);
  int reason = 0;
  const auto bytes = directory_->Read(path, 0, layout_.eager_bytes, reason);
  *bytes_read += static_cast<int64_t>(bytes.size());
  RowsHeader header;
  std::string wrong = reason != 0 ? std::strerror(reason) : DecodeRowsHeader(bytes, header);
  if (wrong.empty() && (!SameLayout(header, layout_) || header.key != key ||
                        !std::equal(tokens.begin(), tokens.end(), header.tokens.begin()))) {
    wrong = "it holds other rows";
  }
  if (wrong.empty() && bytes.size() < layout_.eager_bytes) wrong = "it is cut off";
  for (const RowsSection& section : header.sections) {
    if (!wrong.empty() || section.offset >= layout_.eager_bytes) break;
    if (!IsIntact(section, std::span(bytes).subspan(section.offset, section.size()))) {
      wrong = fmt::format("the {} of block {} have changed", section.keys ? "keys" : "entries",
                          section.block);
    }
  }
  if (!wrong.empty()) {
    if (reason != ENOENT) directory_->RemoveDamaged(path, wrong);
    return false;
  }
  for (const RowsSection& section : header.sections) {
    BlockCache& block = cache.block(section.block);
    PagedRows& rows = section.keys != 0 ? block.keys : block.entries;
    if (section.offset >= layout_.eager_bytes) {
      rows.AppendPage(std::make_shared<StoredPage>(directory_, key, section, bytes_read));
      continue;
    }
    auto page = std::make_shared<uint8_t[]>(section.size());
    std::memcpy(page.get(), bytes.data() + section.offset, section.size());
    rows.AppendPage(std::move(page));
  }
  return true;
}

PrefixStore::Hit PrefixStore::Find(const std::string& owner, std::span<const int32_t> prompt,
                                   int64_t above) {
  const PrefixKey root = PrefixRoot(identity_, owner);
  const std::vector<PrefixKey> groups = GroupKeys(root, prompt);
  auto below = static_cast<int64_t>(prompt.size());
  const std::vector<PrefixDirectory::Place> places = directory_->Places();
  for (const PrefixDirectory::Place& place : places) {
    if (place.tokens >= below) continue;
    if (place.tokens <= above) break;
    const auto tokens = prompt.first(static_cast<size_t>(place.tokens));
    const PrefixKey key = PlaceKey(root, groups, tokens);
    if (key.Hex() != place.key) continue;
    const auto path = directory_->PlacePath(key, place.tokens);
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    if (error) continue;  // given up meanwhile
    Hit hit;
    hit.bytes_read = std::make_shared<std::atomic<int64_t>>(0);
    int reason = 0;
    const auto file = directory_->Read(path, 0, size, reason);
    if (reason == ENOENT) continue;
    *hit.bytes_read += static_cast<int64_t>(file.size());
    PlaceHeader header;
    std::string wrong = reason != 0 ? std::strerror(reason) : DecodePlace(file, header);
    const auto whole = static_cast<size_t>(place.tokens / kCachePageTokens);
    if (wrong.empty() &&
        (header.key != key || header.tokens != place.tokens ||
         !std::equal(header.groups.begin(), header.groups.end(), groups.begin()) ||
         !std::equal(header.rest.begin(), header.rest.end(),
                     tokens.begin() + static_cast<ptrdiff_t>(whole * kCachePageTokens)))) {
      wrong = "it holds another place";
    }
    if (wrong.empty()) {
      hit.cache = std::make_unique<SequenceCache>(config_, backend_);
      size_t group = 0;
      while (group < whole &&
             AppendGroup(groups[group], tokens.subspan(group * kCachePageTokens, kCachePageTokens),
                         *hit.cache, hit.bytes_read)) {
        ++group;
      }
      if (group < whole) {  // no longer place is of use either
        below = std::min(below, static_cast<int64_t>(group + 1) * kCachePageTokens);
        continue;
      }
      wrong = RestorePlace(config_, backend_, file, header, *hit.cache);
    }
    if (!wrong.empty()) {
      directory_->RemoveDamaged(path, wrong);
      continue;
    }
    directory_->Touch(path);
    hit.tokens = place.tokens;
    return hit;
  }
  return {};
}

int64_t PrefixStore::Put(const std::string& owner, std::span<const int32_t> tokens,
                         const SequenceCache& cache) {
  const auto size = static_cast<int64_t>(tokens.size());
  if (size < directory_->options().least_tokens || cache.failed()) return 0;
  const PrefixKey root = PrefixRoot(identity_, owner);
  const std::vector<PrefixKey> groups = GroupKeys(root, tokens);
  const PrefixKey key = PlaceKey(root, groups, tokens);
  const int64_t before = directory_->bytes_written();
  try {
    const PrefixDirectory::Lock lock(*directory_);
    bool stored = false;
    for (const PrefixDirectory::Place& place : directory_->Places()) {
      if (place.tokens > size) continue;
      if (size - place.tokens >= directory_->options().least_tokens) break;
      const auto prefix = tokens.first(static_cast<size_t>(place.tokens));
      if (PlaceKey(root, groups, prefix).Hex() != place.key) continue;
      if (place.tokens < size) return 0;
      stored = directory_->Touch(directory_->PlacePath(key, size));
    }
    std::vector<size_t> missing;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (!directory_->Touch(directory_->RowsPath(groups[i]))) missing.push_back(i);
    }
    if (stored && missing.empty()) return 0;
    std::vector<std::byte> place;
    if (!stored) place = EncodePlace(config_, backend_, key, groups, tokens, cache);
    const auto bytes = static_cast<int64_t>(missing.size() * layout_.file_bytes + place.size());
    if (!directory_->WithinDailyBytes(bytes)) return 0;
    if (!directory_->MakeRoom(bytes, {groups.begin(), groups.end()})) return 0;
    bool good = true;
    for (const size_t i : missing) {
      good = good && directory_->Write(
                         directory_->RowsPath(groups[i]),
                         EncodeRows(layout_, groups[i], static_cast<int64_t>(i),
                                    tokens.subspan(i * kCachePageTokens, kCachePageTokens), cache));
    }
    if (!missing.empty()) good = good && directory_->SyncNames(false);
    if (!stored && good && directory_->Write(directory_->PlacePath(key, size), place)) {
      directory_->SyncNames(true);
    }
  } catch (const PrefixDamage&) {
    // Noted where it was found; whoever goes on with this cache meets it.
  } catch (const Error& error) {
    directory_->Note(error.what());
  }
  return directory_->bytes_written() - before;
}

}  // namespace toaster
