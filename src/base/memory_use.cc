#include "base/memory_use.h"

#include <fstream>
#include <sstream>
#include <string>

namespace toaster {

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
