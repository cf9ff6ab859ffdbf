#include "base/memory_use.h"

#include <malloc.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace toaster {

namespace {

// "max" is no number, and version 1 has a huge one for no limit.
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// The number in a file of one word, or none.
int64_t NumberIn(const std::filesystem::path& path) {
  int64_t number = 0;
  return std::ifstream(path) >> number ? number : kNone;
}

// The least limit of a control group and those around it. A container sees its own group as the
// root, wherever /proc says that it is, so groups that are not there are passed over.
int64_t LeastLimit(const std::filesystem::path& root, std::filesystem::path group,
                   const char* file) {
  int64_t least = NumberIn(root / file);
  for (group = group.relative_path(); !group.empty(); group = group.parent_path())
    least = std::min(least, NumberIn(root / group / file));
  return least;
}

}  // namespace

int64_t MemoryLimit(const std::filesystem::path& groups, const std::filesystem::path& memberships) {
  // Lines are "0::/path" in version 2 and "4:memory:/path" in version 1.
  int64_t least = std::min(NumberIn(groups / "memory.max"),
                           NumberIn(groups / "memory" / "memory.limit_in_bytes"));
  std::ifstream file(memberships);
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string path = line.substr(second + 1);
    if (second == first + 1) least = std::min(least, LeastLimit(groups, path, "memory.max"));
    std::istringstream controllers(line.substr(first + 1, second - first - 1));
    for (std::string controller; std::getline(controllers, controller, ',');) {
      if (controller == "memory")
        least = std::min(least, LeastLimit(groups / "memory", path, "memory.limit_in_bytes"));
    }
  }
  return least;
}

int64_t AvailableMemory() {
  int64_t available = 0;
  std::ifstream machine("/proc/meminfo");
  for (std::string line; std::getline(machine, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kibibytes = 0;
    if (words >> key >> kibibytes && key == "MemAvailable:") available = kibibytes << 10;
  }
  const int64_t limit = MemoryLimit("/sys/fs/cgroup", "/proc/self/cgroup");
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

void ReturnFreedMemory() {
  // Once it is given, the C library does not raise it by itself (up to 32 MiB) any more.
  constexpr int kThreshold = 256 << 10;
  mallopt(M_MMAP_THRESHOLD, kThreshold);
}

void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

}  // namespace toaster
