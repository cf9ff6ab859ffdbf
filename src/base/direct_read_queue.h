#pragma once

// The jobs of a DirectReader, cut into pieces, and what becomes of each piece. Knows no system
// call: whoever reads takes a piece and brings back what the read returned.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/direct_read.h"

namespace toaster {

class DirectReadQueue {
 public:
  struct Job;
  /// A read of whole blocks.
  struct Piece {
    std::shared_ptr<Job> job;
    int file = 0;
    int64_t offset = 0;
    int64_t length = 0;  ///< to ask for
    int64_t needed = 0;  ///< bytes of it that have to come; the file may end after them
    std::byte* buffer = nullptr;
    bool again = false;  ///< has failed once
  };

  /// `work` is called, outside of any lock, whenever pieces may have come.
  DirectReadQueue(const DirectReadOptions& options, const std::vector<std::filesystem::path>& files,
                  std::function<void()> work);
  ~DirectReadQueue();

  int64_t Start(const std::vector<DirectReader::Range>& ranges, bool urgent,
                DirectReader::Done done);
  void Hurry(int64_t number);
  bool Cancel(int64_t number);

  /// The next piece; false if there is none, after waiting for one or Stop() if asked to. Every
  /// piece taken has to be brought to Finish().
  bool Take(bool wait, Piece& piece);
  /// `result`: bytes read, or a negative errno. May call the job's `done`.
  void Finish(Piece piece, int64_t result);
  /// Take() gives nothing from now on.
  void Stop();
  bool stopped() const;

  DirectReadFigures figures() const;

 private:
  std::list<std::shared_ptr<Job>>& ListOf(const Job& job);
  /// What a result says: nothing if the piece is whole or goes on, else the failure.
  std::exception_ptr Judge(Piece& piece, int64_t result, bool& goes_on) const;

  const DirectReadOptions options_;
  const std::vector<std::filesystem::path>& files_;
  const std::function<void()> work_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::list<std::shared_ptr<Job>> urgent_, other_;  // that have pieces to be taken
  std::unordered_map<int64_t, std::shared_ptr<Job>> live_;
  int64_t next_number_ = 0;
  int64_t in_flight_ = 0;
  std::chrono::steady_clock::time_point busy_since_;
  DirectReadFigures figures_;
  bool stopped_ = false;
};

/// Reads the pieces of a queue with one io_uring and one thread.
class DirectReadRing {
 public:
  /// Null where the system does not allow it. `queue` and `descriptors` are borrowed.
  static std::unique_ptr<DirectReadRing> Create(int in_flight, const std::vector<int>& descriptors);
  ~DirectReadRing();
  /// Begins to serve `queue`; ends when that is stopped and nothing is in flight.
  void Serve(DirectReadQueue& queue);
  /// Makes the ring look for pieces. Any thread.
  void Wake();

 private:
  struct State;
  explicit DirectReadRing(std::unique_ptr<State> state);
  void Work(DirectReadQueue& queue);

  std::unique_ptr<State> state_;
  std::thread thread_;
};

}  // namespace toaster
