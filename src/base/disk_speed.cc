#include "base/disk_speed.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

namespace toaster {

std::optional<double> DirectReadRate(const std::filesystem::path& path) {
  constexpr int64_t kBlock = int64_t{4} << 20, kAlignment = 4096;
  constexpr int kReaders = 4;
  constexpr std::chrono::milliseconds kTime(1000);
  std::error_code error;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
  const int64_t blocks = error ? 0 : size / kBlock;
  if (blocks < kReaders) return std::nullopt;
  const int file = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (file < 0) return std::nullopt;

  std::atomic<int64_t> next = 0, bytes = 0;
  std::atomic<bool> failed = false;
  const auto start = std::chrono::steady_clock::now();
  const auto read_blocks = [&] {
    const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(kAlignment, kBlock),
                                                             &std::free);
    while (!failed && std::chrono::steady_clock::now() - start < kTime) {
      const int64_t block = next++ % blocks;
      const ssize_t count = pread(file, buffer.get(), kBlock, block * kBlock);
      if (count <= 0) {
        failed = true;
      } else {
        bytes += count;
      }
    }
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) readers.emplace_back(read_blocks);
  for (std::thread& reader : readers) reader.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  close(file);
  if (failed) return std::nullopt;
  return static_cast<double>(bytes) / seconds.count();
}

}  // namespace toaster
