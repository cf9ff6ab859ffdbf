#include "base/memory_use.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace toaster {

namespace {

// The number in a file of one word, or `otherwise`.
int64_t NumberIn(const char* path, int64_t otherwise) {
  int64_t number = 0;
  return std::ifstream(path) >> number ? number : otherwise;
}

}  // namespace

int64_t AvailableMemory() {
  int64_t available = 0;
  std::ifstream machine("/proc/meminfo");
  for (std::string line; std::getline(machine, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kibibytes = 0;
    if (words >> key >> kibibytes && key == "MemAvailable:") available = kibibytes << 10;
  }
  // "max" is no number, and version 1 has a huge one for no limit.
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  const int64_t limit = std::min(NumberIn("/sys/fs/cgroup/memory.max", kNone),
                                 NumberIn("/sys/fs/cgroup/memory/memory.limit_in_bytes", kNone));
  return std::min(available, std::max<int64_t>(0, limit - CurrentMemoryUse().anonymous));
}

MemoryUse CurrentMemoryUse() {
  MemoryUse use;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kibibytes = 0;
    if (!(words >> key >> kibibytes)) continue;
    if (key == "RssFile:" || key == "RssShmem:") use.file += kibibytes << 10;
    if (key == "RssAnon:") use.anonymous = kibibytes << 10;
    if (key == "VmHWM:") use.peak = kibibytes << 10;
  }
  return use;
}

}  // namespace toaster
