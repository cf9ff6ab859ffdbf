#include "backend/cpu/kernels/limits.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <iterator>
#include <numeric>

#include "base/error.h"

namespace toaster::kernels {

namespace {

constexpr int kAttempts = 4;
// More than any cache holds of it from one attempt to the next.
constexpr int64_t kReadBytes = int64_t{384} << 20;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The rate at which all threads together do what `work` returns the amount of.
template <typename Work>
double Rate(ThreadPool& pool, const Work& work) {
  std::atomic<int64_t> done = 0;
  const double start = Now();
  pool.ParallelFor(pool.threads(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) done += work(i);
  });
  return static_cast<double>(done) / (Now() - start);
}

template <typename Work>
double BestRate(ThreadPool& pool, const Work& work) {
  double best = 0;
  for (int attempt = 0; attempt < kAttempts; ++attempt) best = std::max(best, Rate(pool, work));
  return best;
}

// Anonymous memory in huge pages, if the system gives them.
class HugeMemory {
 public:
  explicit HugeMemory(int64_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) {
      throw Error(ErrorCode::kOutOfMemory,
                  fmt::format("no memory to measure the machine with; free {} MiB and try again",
                              bytes >> 20));
    }
    madvise(data_, bytes, MADV_HUGEPAGE);
  }
  ~HugeMemory() { munmap(data_, bytes_); }
  HugeMemory(const HugeMemory&) = delete;
  HugeMemory& operator=(const HugeMemory&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  int64_t bytes_;
  void* data_;
};

uint64_t Sum(const uint64_t* words, int64_t count) {
  constexpr int kChains = 16;
  uint64_t sums[kChains] = {};
  for (int64_t i = 0; i + kChains <= count; i += kChains) {
    for (int j = 0; j < kChains; ++j) sums[j] += words[i + j];
  }
  return std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
}

double ReadRate(ThreadPool& pool) {
  const HugeMemory memory(kReadBytes);
  const int64_t share = kReadBytes / pool.threads() / 4096 * 4096;
  pool.ParallelFor(pool.threads(), 1, [&](int64_t begin, int64_t end, int) {
    std::memset(memory.data() + begin * share, 1, (end - begin) * share);
  });
  std::atomic<uint64_t> sink = 0;
  return BestRate(pool, [&](int64_t i) {
    sink += Sum(reinterpret_cast<const uint64_t*>(memory.data() + i * share), share / 8);
    return share;
  });
}

auto Spinning(int64_t (*spin)(int64_t rounds, float* sink), int64_t rounds) {
  return [spin, rounds](int64_t) {
    float sink = 0;
    const int64_t operations = spin(rounds, &sink);
    static std::atomic<int> count = 0;  // so that nothing is left out
    count += sink > 1;
    return operations;
  };
}

constexpr int64_t kAttemptRounds = int64_t{1} << 21;

double SpinRate(ThreadPool& pool, int64_t (*spin)(int64_t rounds, float* sink)) {
  return BestRate(pool, Spinning(spin, kAttemptRounds));
}

}  // namespace

MachineLimits MeasureLimits(const KernelTable& table, ThreadPool& pool) {
  return {.read_bytes_per_s = ReadRate(pool),
          .bf16_flops_per_s = SpinRate(pool, table.spin_bf16),
          .int8_ops_per_s = SpinRate(pool, table.spin_int8),
          .float_flops_per_s = SpinRate(pool, table.spin_float)};
}

double CurrentInt8Rate(const KernelTable& table, ThreadPool& pool) {
  return Rate(pool, Spinning(table.spin_int8, int64_t{1} << 16));
}

double CurrentBf16Rate(const KernelTable& table, ThreadPool& pool) {
  return Rate(pool, Spinning(table.spin_bf16, kAttemptRounds));
}

}  // namespace toaster::kernels
