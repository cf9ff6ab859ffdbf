#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace toaster {

/// A fixed set of threads that run one parallel loop at a time.
///
/// Owns its threads; the thread that calls ParallelFor works too, so a pool of one has no extra
/// thread. ParallelFor may be called by one thread at a time and not from inside a loop. Each
/// thread of the pool flushes denormals (base/flush_denormals.h); the caller has to hold that mode
/// itself.
class ThreadPool {
 public:
  /// `threads` >= 1, the caller included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(begin, end, thread) on disjoint pieces of [0, count) that are multiples of `grain`
  /// long (the last one may be shorter); `thread` is in [0, threads()). Returns when all are done.
  /// A thread goes through a share of neighbouring pieces, so that what it reads ahead it needs
  /// itself, and then takes pieces from the ends of other threads' shares: which thread gets which
  /// piece varies, so a piece's result must depend on nothing else. An exception from `body` is
  /// rethrown here after all threads have stopped.
  void ParallelFor(int64_t count, int64_t grain,
                   const std::function<void(int64_t begin, int64_t end, int thread)>& body);

 private:
  /// Pieces that a thread has still before it: [begin, end), as end * 2^32 + begin so that both
  /// change at once. A cache line of its own.
  struct alignas(64) Share {
    std::atomic<uint64_t> pieces{0};
  };
  static constexpr int64_t kNoPiece = -1;

  void Work(int thread);
  void RunPieces(int thread);
  // Each gives a piece's number, or kNoPiece.
  static int64_t TakeFirst(Share& share);
  static int64_t TakeLast(Share& share);
  int64_t NextPiece(int thread);

  std::vector<std::thread> workers_;
  // A thread that waits spins for a moment, since the next loop usually follows at once, and then
  // sleeps.
  std::mutex mutex_;
  std::condition_variable wake_;    // workers wait for a new round
  std::condition_variable done_;    // the caller waits for pending_ to become 0
  std::atomic<uint64_t> round_{0};  // counts loops; changes under mutex_
  std::atomic<int> pending_{0};     // workers that have not finished this round
  std::atomic<bool> stop_{false};
  int sleepers_ = 0;  // workers in wake_; under mutex_

  // The loop at hand: written before round_ changes, read after.
  const std::function<void(int64_t, int64_t, int)>* body_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  std::vector<Share> shares_;   // by thread
  std::exception_ptr failure_;  // under mutex_
};

/// Processors this process may use: its affinity mask and its cgroup's CPU quota, at least 1.
int UsableProcessors();

}  // namespace toaster
