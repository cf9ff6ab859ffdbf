#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <fstream>
#include <string>

#include "base/check.h"
#include "base/flush_denormals.h"

namespace toaster {

namespace {

// Tells the processor that this is a spinning loop.
void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks for a few tens of microseconds whether `ready` becomes true.
template <typename Ready>
bool SpinUntil(const Ready& ready) {
  constexpr int kLooks = 2000;
  for (int i = 0; i < kLooks; ++i) {
    if (ready()) return true;
    Pause();
  }
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<size_t>(std::max(threads, 0))) {
  CHECK(threads >= 1, "{} threads", threads);
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain,
                             const std::function<void(int64_t, int64_t, int)>& body) {
  CHECK(grain >= 1, "grain {}", grain);
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) {
    body(0, count, 0);
    return;
  }
  CHECK(pending_ == 0, "ParallelFor inside ParallelFor");
  body_ = &body;
  count_ = count;
  grain_ = grain;
  const auto pieces = static_cast<uint64_t>((count + grain - 1) / grain);
  CHECK(pieces < uint64_t{1} << 32, "{} pieces", pieces);
  for (size_t i = 0; i < shares_.size(); ++i) {
    shares_[i].pieces = (pieces * (i + 1) / shares_.size() << 32) | pieces * i / shares_.size();
  }
  failure_ = nullptr;
  pending_ = static_cast<int>(workers_.size());
  bool asleep;
  {
    std::lock_guard lock(mutex_);
    ++round_;
    asleep = sleepers_ > 0;
  }
  if (asleep) wake_.notify_all();
  RunPieces(0);
  if (!SpinUntil([this] { return pending_ == 0; })) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
  }
  if (failure_) std::rethrow_exception(failure_);
}

int64_t ThreadPool::TakeFirst(Share& share) {
  uint64_t pieces = share.pieces;
  while (pieces >> 32 > (pieces & UINT32_MAX)) {
    if (share.pieces.compare_exchange_weak(pieces, pieces + 1)) return pieces & UINT32_MAX;
  }
  return kNoPiece;
}

int64_t ThreadPool::TakeLast(Share& share) {
  uint64_t pieces = share.pieces;
  while (pieces >> 32 > (pieces & UINT32_MAX)) {
    const uint64_t without = pieces - (uint64_t{1} << 32);
    if (share.pieces.compare_exchange_weak(pieces, without)) {
      return static_cast<int64_t>(without >> 32);
    }
  }
  return kNoPiece;
}

int64_t ThreadPool::NextPiece(int thread) {
  const auto own = static_cast<size_t>(thread);
  int64_t piece = TakeFirst(shares_[own]);
  for (size_t i = 1; piece == kNoPiece && i < shares_.size(); ++i) {
    piece = TakeLast(shares_[(own + i) % shares_.size()]);
  }
  return piece;
}

void ThreadPool::RunPieces(int thread) {
  try {
    for (int64_t piece; (piece = NextPiece(thread)) != kNoPiece;) {
      const int64_t begin = piece * grain_;
      (*body_)(begin, std::min(begin + grain_, count_), thread);
    }
  } catch (...) {
    for (Share& share : shares_) share.pieces = 0;
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::Work(int thread) {
  const ScopedFlushDenormals flush;
  uint64_t seen = 0;
  const auto called = [&] { return stop_ || round_ != seen; };
  for (;;) {
    if (!SpinUntil(called)) {
      std::unique_lock lock(mutex_);
      ++sleepers_;
      wake_.wait(lock, called);
      --sleepers_;
    }
    if (stop_) return;
    seen = round_;
    RunPieces(thread);
    if (pending_.fetch_sub(1) == 1) {
      // Under the lock, so that the caller cannot miss it between its look and its sleep.
      std::lock_guard lock(mutex_);
      done_.notify_one();
    }
  }
}

namespace {

// CPU time per period that the cgroup allows, in processors; infinity where there is no limit.
double CgroupQuota() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period) {
    return quota == "max" || period <= 0 ? INFINITY : std::strtod(quota.c_str(), nullptr) / period;
  }
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double microseconds = -1;
  if (quota_file >> microseconds && period_file >> period && microseconds > 0 && period > 0) {
    return microseconds / period;
  }
  return INFINITY;
}

}  // namespace

int UsableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int count = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = std::max(1, CPU_COUNT(&set));
  const double quota = CgroupQuota();
  if (quota < count) count = std::max(1, static_cast<int>(std::ceil(quota)));
  return count;
}

}  // namespace toaster
