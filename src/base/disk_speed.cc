#include "base/disk_speed.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "base/direct_read.h"
#include "base/error.h"
#include "base/random.h"

namespace toaster {

namespace {

constexpr int64_t kRange = int64_t{12} << 20;  // about an expert
constexpr int kRanges = 4;                     // at a time

}  // namespace

std::optional<double> DirectReadRate(const std::vector<std::filesystem::path>& files,
                                     double seconds) {
  // Places to read from, all over the files.
  struct Place {
    int file;
    int64_t offset;
  };
  std::vector<std::filesystem::path> large;
  std::vector<Place> places;
  for (const std::filesystem::path& file : files) {
    std::error_code error;
    const auto size = static_cast<int64_t>(std::filesystem::file_size(file, error));
    if (error || size < kRange) continue;
    for (int64_t at = 0; at + kRange <= size; at += kRange) {
      places.push_back({static_cast<int>(large.size()), at});
    }
    large.push_back(file);
  }
  if (places.size() < kRanges) return std::nullopt;

  // While this function waits for all, one range after the other begins where one ends.
  std::mutex mutex;
  std::condition_variable idle;
  int running = 0;
  bool failed = false;
  uint64_t next = 0;
  try {
    const ReadMemory memory(kRanges * kRange);
    std::fill_n(memory.data(), memory.size(), std::byte{0});  // faults are not the disk's
    DirectReader reader(large);
    for (size_t file = 0; file < large.size(); ++file) {
      if (!reader.direct(static_cast<int>(file))) return std::nullopt;
    }
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    const std::function<void(std::byte*)> begin = [&](std::byte* buffer) {
      const auto drawn = Philox(static_cast<uint64_t>(places.size()), next++, 0);
      const Place place = places[drawn[0] % places.size()];
      reader.Start({{place.file, place.offset, kRange, buffer}}, false,
                   [&, buffer](const std::exception_ptr& failure) {
                     const std::lock_guard lock(mutex);
                     failed = failed || failure;
                     if (!failed && elapsed() < seconds) {
                       begin(buffer);
                     } else if (--running == 0) {
                       idle.notify_all();
                     }
                   });
    };
    std::unique_lock lock(mutex);
    for (int i = 0; i < kRanges; ++i) {
      ++running;
      begin(memory.data() + i * kRange);
    }
    idle.wait(lock, [&] { return running == 0; });
    const DirectReadFigures figures = reader.figures();
    if (failed || figures.busy_seconds <= 0) return std::nullopt;
    return static_cast<double>(figures.bytes) / figures.busy_seconds;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace toaster
