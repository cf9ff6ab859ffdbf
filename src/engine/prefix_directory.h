#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file_environment.h"
#include "engine/prefix_file.h"

namespace toaster {

struct PrefixStoreOptions {
  std::filesystem::path directory;
  int64_t most_bytes = 32ll << 30;   ///< the files together
  int64_t daily_bytes = 64ll << 30;  ///< written per day, by all programs that share the store
  int64_t least_tokens = 256;  ///< a place nearer than this to one that is there is not worth it
  FileEnvironment* environment = &FileEnvironment::System();
  /// Told what is damaged or fails, a line each. Called by the thread that uses the store.
  std::function<void(const std::string&)> note;
};

/// The files of a prefix store: names, sizes, who may write, what has to go. Knows no model.
/// Several processes may share the directory; whoever writes or removes holds its lock. One thread,
/// but for the counters.
class PrefixDirectory {
 public:
  /// Makes the directory if need be. Throws Error(kIo) if it cannot be used.
  explicit PrefixDirectory(PrefixStoreOptions options);

  const PrefixStoreOptions& options() const { return options_; }
  std::filesystem::path RowsPath(const PrefixKey& key) const;
  std::filesystem::path PlacePath(const PrefixKey& key, int64_t tokens) const;

  struct Place {
    std::string key;  ///< hexadecimal
    int64_t tokens = 0;
    bool operator==(const Place&) const = default;
  };
  /// Those on disk, the longest first; other processes' too.
  const std::vector<Place>& Places();

  /// The right to write and remove; waits for it. Others' unfinished files are gone then.
  class Lock {
   public:
    explicit Lock(const PrefixDirectory& directory);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    int descriptor_ = -1;
  };

  /// Sets the time of last use; false if there is no such file.
  bool Touch(const std::filesystem::path& path) const;
  /// Up to `size` bytes from `offset`, fewer at the file's end. Nothing if it cannot be read; then
  /// `reason` is an errno value.
  std::vector<std::byte> Read(const std::filesystem::path& path, int64_t offset, size_t size,
                              int& reason);
  /// With the lock: writes a file under its name. False: it failed, which was noted.
  bool Write(const std::filesystem::path& path, std::span<const std::byte> bytes);
  /// With the lock: brings the names of rows, or of places, to disk.
  bool SyncNames(bool places);
  /// With the lock: whether `bytes` more may be written today.
  bool WithinDailyBytes(int64_t bytes) const;
  /// With the lock: gives up what is worth least until `bytes` more fit; rows in `kept` stay. False
  /// if they cannot fit.
  bool MakeRoom(int64_t bytes, const std::set<PrefixKey>& kept);
  /// Notes and removes a file that is not what it should be.
  void RemoveDamaged(const std::filesystem::path& path, const std::string& what);
  void Note(const std::string& line) const;

  /// For people: what is there.
  struct Listed {
    Place place;
    int64_t bytes = 0;       ///< of the place's own file
    int64_t rows_bytes = 0;  ///< of the rows that no other place needs
    double gained_tokens = 0;
    double age_seconds = 0;  ///< since its last use
  };
  struct Contents {
    std::vector<Listed> places;  ///< those worth least first
    int64_t rows_files = 0, bytes = 0;
    int64_t unused_bytes = 0;  ///< of rows that no place needs
  };
  Contents List();
  /// Examines every byte of every file, and removes what is damaged and places whose rows are not
  /// there. Returns how many were removed.
  int64_t Verify();
  /// Gives up what is worth least until the files have at most `bytes`, and rows without a place.
  void Prune(int64_t bytes);
  /// Removes every file.
  void Clear();

  int64_t bytes_read() const { return read_; }
  int64_t bytes_written() const { return written_; }

 private:
  struct Scan;
  Scan ScanFiles();
  void RemovePlace(Scan& scan, size_t index);
  bool Shrink(Scan& scan, int64_t bytes, const std::set<PrefixKey>& kept);
  std::vector<PrefixKey> GroupsOf(const Place& place);

  PrefixStoreOptions options_;
  std::vector<Place> places_;
  std::optional<std::filesystem::file_time_type> places_time_;
  uint64_t temporaries_ = 0;
  std::atomic<int64_t> read_ = 0, written_ = 0;
};

}  // namespace toaster
