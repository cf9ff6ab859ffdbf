#include "engine/prefix_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>

namespace toaster {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRowsEnd = ".rows", kPlaceEnd = ".place", kTemporary = "temporary-";
constexpr size_t kKeyDigits = 32;
// What a place saved yesterday is worth half of what it saved today.
constexpr double kHalfLifeSeconds = 86400;
// In a place's file the groups' keys follow this.
constexpr size_t kGroupsOffset = 8 + 4 + 4 + 8 + 8 + 16;

std::optional<PrefixKey> ParseKey(std::string_view text) {
  PrefixKey key;
  if (text.size() != kKeyDigits) return std::nullopt;
  for (auto [digits, half] :
       {std::pair(text.substr(0, 16), &key.high), std::pair(text.substr(16), &key.low)}) {
    const char* end = digits.data() + digits.size();
    if (std::from_chars(digits.data(), end, *half, 16).ptr != end) return std::nullopt;
  }
  return key;
}

std::optional<PrefixDirectory::Place> ParsePlace(std::string_view name) {
  if (!name.ends_with(kPlaceEnd)) return std::nullopt;
  name.remove_suffix(kPlaceEnd.size());
  PrefixDirectory::Place place;
  if (name.size() < kKeyDigits + 2 || name[kKeyDigits] != '-') return std::nullopt;
  place.key = name.substr(0, kKeyDigits);
  const char* end = name.data() + name.size();
  if (std::from_chars(name.data() + kKeyDigits + 1, end, place.tokens).ptr != end ||
      place.tokens < 1 || !ParseKey(place.key)) {
    return std::nullopt;
  }
  return place;
}

std::optional<PrefixKey> ParseRows(std::string_view name) {
  if (!name.ends_with(kRowsEnd)) return std::nullopt;
  name.remove_suffix(kRowsEnd.size());
  return ParseKey(name);
}

int64_t Today() {
  return std::chrono::duration_cast<std::chrono::hours>(
             std::chrono::system_clock::now().time_since_epoch())
             .count() /
         24;
}

void MakeDirectory(const fs::path& path) {
  std::error_code ignored;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), ignored);
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot make the directory of the prefix store: {}; give another "
                            "with --cache-dir",
                            path.string(), std::strerror(errno)));
  }
}

// What a directory holds, other processes' changes meanwhile left out.
std::vector<fs::directory_entry> Entries(const fs::path& path) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    entries.push_back(*at);
  }
  return entries;
}

// Bytes written today, by all processes.
int64_t WrittenToday(const fs::path& path) {
  char text[64] = {};
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  const ssize_t size = read(descriptor, text, sizeof(text) - 1);
  close(descriptor);
  int64_t day = 0, bytes = 0;
  const char* end = text + std::max<ssize_t>(0, size);
  const char* blank = std::from_chars(text, end, day).ptr;
  if (blank == end || day != Today()) return 0;
  std::from_chars(blank + 1, end, bytes);
  return bytes;
}

}  // namespace

struct PrefixDirectory::Scan {
  struct File {
    int64_t bytes = 0;
    int64_t places = 0;  ///< that need it
  };
  std::map<PrefixKey, File> rows;
  std::vector<Listed> places;
  std::vector<std::vector<PrefixKey>> groups;  ///< of each place
  int64_t bytes = 0;
};

PrefixDirectory::PrefixDirectory(PrefixStoreOptions options) : options_(std::move(options)) {
  for (const char* folder : {"", "rows", "places"}) {
    const fs::path path = *folder ? options_.directory / folder : options_.directory;
    MakeDirectory(path);
    if (access(path.c_str(), R_OK | W_OK | X_OK) != 0) {
      throw Error(ErrorCode::kIo,
                  fmt::format("{}: cannot use the prefix store: {}; give another directory with "
                              "--cache-dir",
                              path.string(), std::strerror(errno)));
    }
  }
  const Lock lock(*this);
}

PrefixDirectory::Lock::Lock(const PrefixDirectory& directory) {
  const fs::path& path = directory.options_.directory;
  descriptor_ = open((path / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  int result = descriptor_ < 0 ? -1 : 0;
  if (result == 0) {
    do result = flock(descriptor_, LOCK_EX);
    while (result != 0 && errno == EINTR);
  }
  if (result != 0) {
    const int reason = errno;
    if (descriptor_ >= 0) close(descriptor_);
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot lock the prefix store: {}", path.string(),
                                            std::strerror(reason)));
  }
  for (const char* folder : {"rows", "places"}) {
    for (const auto& entry : Entries(path / folder)) {
      if (entry.path().filename().string().starts_with(kTemporary)) unlink(entry.path().c_str());
    }
  }
}

PrefixDirectory::Lock::~Lock() { close(descriptor_); }

fs::path PrefixDirectory::RowsPath(const PrefixKey& key) const {
  return options_.directory / "rows" / (key.Hex() + std::string(kRowsEnd));
}

fs::path PrefixDirectory::PlacePath(const PrefixKey& key, int64_t tokens) const {
  return options_.directory / "places" / fmt::format("{}-{}{}", key.Hex(), tokens, kPlaceEnd);
}

const std::vector<PrefixDirectory::Place>& PrefixDirectory::Places() {
  std::error_code error;
  const fs::path path = options_.directory / "places";
  const auto time = fs::last_write_time(path, error);
  // A change within the clock's step after a reading would not show in the time.
  const bool settled = fs::file_time_type::clock::now() - time > std::chrono::seconds(2);
  if (!error && settled && places_time_ == time) return places_;
  places_.clear();
  for (const auto& entry : Entries(path)) {
    if (auto place = ParsePlace(entry.path().filename().string())) places_.push_back(*place);
  }
  std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
    return a.tokens != b.tokens ? a.tokens > b.tokens : a.key < b.key;
  });
  places_time_ = settled ? std::optional(time) : std::nullopt;
  return places_;
}

bool PrefixDirectory::Touch(const fs::path& path) const {
  return utimensat(AT_FDCWD, path.c_str(), nullptr, 0) == 0;
}

std::vector<std::byte> PrefixDirectory::Read(const fs::path& path, int64_t offset, size_t size,
                                             int& reason) {
  std::vector<std::byte> bytes(size);
  size_t count = 0;
  reason = options_.environment->Read(path, offset, bytes, count);
  bytes.resize(reason == 0 ? count : 0);
  read_ += static_cast<int64_t>(bytes.size());
  return bytes;
}

bool PrefixDirectory::Write(const fs::path& path, std::span<const std::byte> bytes) {
  const fs::path temporary =
      path.parent_path() / fmt::format("{}{}-{}", kTemporary, getpid(), temporaries_++);
  const int reason = options_.environment->WriteWhole(temporary, path, bytes);
  if (reason != 0) {
    Note(fmt::format("{}: cannot write: {}{}", path.string(), std::strerror(reason),
                     reason == ENOSPC ? "; make room, or give a smaller --cache-size" : ""));
    return false;
  }
  written_ += static_cast<int64_t>(bytes.size());
  // A count that a crash loses costs nothing but a little wear, so it is not synced.
  const fs::path count = options_.directory / "written";
  const int64_t today = WrittenToday(count) + static_cast<int64_t>(bytes.size());
  const int descriptor = open(count.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0) return true;
  const std::string text = fmt::format("{} {}\n", Today(), today);
  if (write(descriptor, text.data(), text.size()) < 0) Note("cannot count the bytes written");
  close(descriptor);
  return true;
}

bool PrefixDirectory::SyncNames(bool places) {
  const fs::path path = options_.directory / (places ? "places" : "rows");
  const int reason = options_.environment->SyncDirectory(path);
  if (reason != 0) Note(fmt::format("{}: cannot sync: {}", path.string(), std::strerror(reason)));
  return reason == 0;
}

bool PrefixDirectory::WithinDailyBytes(int64_t bytes) const {
  return options_.daily_bytes == 0 ||
         WrittenToday(options_.directory / "written") + bytes <= options_.daily_bytes;
}

void PrefixDirectory::RemoveDamaged(const fs::path& path, const std::string& what) {
  Note(fmt::format("{}: {}; removed, what it held is computed again", path.string(), what));
  options_.environment->Remove(path);
  places_time_.reset();
}

void PrefixDirectory::Note(const std::string& line) const {
  if (options_.note) options_.note(line);
}

std::vector<PrefixKey> PrefixDirectory::GroupsOf(const Place& place) {
  const fs::path path =
      options_.directory / "places" / fmt::format("{}-{}{}", place.key, place.tokens, kPlaceEnd);
  std::vector<PrefixKey> groups(static_cast<size_t>(place.tokens / kCachePageTokens));
  int reason = 0;
  const auto bytes = Read(path, kGroupsOffset, groups.size() * sizeof(PrefixKey), reason);
  if (bytes.size() != groups.size() * sizeof(PrefixKey)) return {};
  for (size_t i = 0; i < groups.size(); ++i) {
    std::memcpy(&groups[i].low, bytes.data() + 16 * i, 8);
    std::memcpy(&groups[i].high, bytes.data() + 16 * i + 8, 8);
  }
  return groups;
}

PrefixDirectory::Scan PrefixDirectory::ScanFiles() {
  Scan scan;
  std::error_code error;
  for (const auto& entry : Entries(options_.directory / "rows")) {
    const auto key = ParseRows(entry.path().filename().string());
    const auto bytes = entry.file_size(error);
    if (!key || error) continue;
    scan.rows[*key].bytes = static_cast<int64_t>(bytes);
    scan.bytes += static_cast<int64_t>(bytes);
  }
  const auto now = fs::file_time_type::clock::now();
  for (const auto& entry : Entries(options_.directory / "places")) {
    const auto place = ParsePlace(entry.path().filename().string());
    const auto bytes = entry.file_size(error);
    if (!place || error) continue;
    const auto time = entry.last_write_time(error);
    if (error) continue;
    Listed& listed = scan.places.emplace_back();
    listed.place = *place;
    listed.bytes = static_cast<int64_t>(bytes);
    listed.age_seconds = std::max(0.0, std::chrono::duration<double>(now - time).count());
    scan.bytes += listed.bytes;
    scan.groups.push_back(GroupsOf(*place));
    for (const PrefixKey& key : scan.groups.back()) {
      if (const auto rows = scan.rows.find(key); rows != scan.rows.end()) ++rows->second.places;
    }
  }
  // What a place saves is the tokens behind the longest other one that it goes on from.
  std::map<PrefixKey, std::vector<int64_t>> ends;  // by last whole group: tokens of places
  for (size_t i = 0; i < scan.places.size(); ++i) {
    if (!scan.groups[i].empty()) ends[scan.groups[i].back()].push_back(scan.places[i].place.tokens);
  }
  for (size_t i = 0; i < scan.places.size(); ++i) {
    Listed& listed = scan.places[i];
    int64_t before = 0;
    for (const PrefixKey& key : scan.groups[i]) {
      const auto rows = scan.rows.find(key);
      if (rows != scan.rows.end() && rows->second.places == 1) {
        listed.rows_bytes += rows->second.bytes;
      }
      const auto end = ends.find(key);
      if (end == ends.end()) continue;
      for (const int64_t tokens : end->second) {
        if (tokens < listed.place.tokens) before = std::max(before, tokens);
      }
    }
    listed.gained_tokens = static_cast<double>(listed.place.tokens - before);
  }
  return scan;
}

void PrefixDirectory::RemovePlace(Scan& scan, size_t index) {
  const Listed& listed = scan.places[index];
  options_.environment->Remove(
      options_.directory / "places" /
      fmt::format("{}-{}{}", listed.place.key, listed.place.tokens, kPlaceEnd));
  scan.bytes -= listed.bytes;
  places_time_.reset();
  for (const PrefixKey& key : scan.groups[index]) {
    if (const auto rows = scan.rows.find(key); rows != scan.rows.end()) --rows->second.places;
  }
}

bool PrefixDirectory::Shrink(Scan& scan, int64_t bytes, const std::set<PrefixKey>& kept) {
  if (scan.bytes <= bytes) return true;
  const auto remove_rows = [&] {
    for (auto at = scan.rows.begin(); at != scan.rows.end();) {
      if (at->second.places > 0 || kept.contains(at->first)) {
        ++at;
        continue;
      }
      options_.environment->Remove(RowsPath(at->first));
      scan.bytes -= at->second.bytes;
      at = scan.rows.erase(at);
    }
  };
  remove_rows();
  std::vector<size_t> order(scan.places.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::vector<double> worth;  // tokens saved per byte, halved with each day
  for (const Listed& listed : scan.places) {
    worth.push_back(listed.gained_tokens * std::exp2(-listed.age_seconds / kHalfLifeSeconds) /
                    static_cast<double>(std::max<int64_t>(1, listed.bytes + listed.rows_bytes)));
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return worth[a] < worth[b]; });
  for (size_t i = 0; i < order.size() && scan.bytes > bytes; ++i) {
    RemovePlace(scan, order[i]);
    remove_rows();
  }
  return scan.bytes <= bytes;
}

bool PrefixDirectory::MakeRoom(int64_t bytes, const std::set<PrefixKey>& kept) {
  if (bytes > options_.most_bytes) return false;
  Scan scan = ScanFiles();
  return Shrink(scan, options_.most_bytes - bytes, kept);
}

PrefixDirectory::Contents PrefixDirectory::List() {
  Scan scan = ScanFiles();
  Contents contents;
  contents.rows_files = static_cast<int64_t>(scan.rows.size());
  contents.bytes = scan.bytes;
  for (const auto& [key, file] : scan.rows) {
    if (file.places == 0) contents.unused_bytes += file.bytes;
  }
  contents.places = std::move(scan.places);
  std::sort(contents.places.begin(), contents.places.end(),
            [](const Listed& a, const Listed& b) { return a.age_seconds > b.age_seconds; });
  return contents;
}

int64_t PrefixDirectory::Verify() {
  const Lock lock(*this);
  int64_t removed = 0;
  const auto examine = [&](const fs::path& path, const auto& check) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (error) return;
    int reason = 0;
    const auto file = Read(path, 0, size, reason);
    const std::string wrong = reason != 0 ? std::strerror(reason) : check(file);
    if (wrong.empty()) return;
    RemoveDamaged(path, wrong);
    ++removed;
  };
  for (const auto& entry : Entries(options_.directory / "rows")) {
    const auto key = ParseRows(entry.path().filename().string());
    if (!key) continue;
    examine(entry.path(), [&](std::span<const std::byte> file) {
      RowsHeader header;
      std::string wrong = CheckRows(file);
      if (!wrong.empty() || !DecodeRowsHeader(file, header).empty()) return wrong;
      return header.key == *key ? wrong : "its name is another's";
    });
  }
  for (const auto& entry : Entries(options_.directory / "places")) {
    const auto place = ParsePlace(entry.path().filename().string());
    if (!place) continue;
    examine(entry.path(), [&](std::span<const std::byte> file) -> std::string {
      PlaceHeader header;
      if (std::string wrong = DecodePlace(file, header); !wrong.empty()) return wrong;
      if (header.key.Hex() != place->key || header.tokens != place->tokens)
        return "its name is another's";
      for (const PrefixKey& key : header.groups) {
        if (!fs::exists(RowsPath(key))) return "rows that it needs are not there";
      }
      return "";
    });
  }
  return removed;
}

void PrefixDirectory::Prune(int64_t bytes) {
  const Lock lock(*this);
  Scan scan = ScanFiles();
  Shrink(scan, bytes, {});
  for (const auto& [key, file] : scan.rows) {
    if (file.places == 0) options_.environment->Remove(RowsPath(key));
  }
}

void PrefixDirectory::Clear() {
  const Lock lock(*this);
  for (const auto& entry : Entries(options_.directory / "places")) {
    if (ParsePlace(entry.path().filename().string())) options_.environment->Remove(entry.path());
  }
  for (const auto& entry : Entries(options_.directory / "rows")) {
    if (ParseRows(entry.path().filename().string())) options_.environment->Remove(entry.path());
  }
  places_time_.reset();
}

}  // namespace toaster
