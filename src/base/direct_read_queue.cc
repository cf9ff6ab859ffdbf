#include "base/direct_read_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace toaster {

struct DirectReadQueue::Job {
  int64_t number = 0;
  bool urgent = false;
  std::deque<Piece> pieces;  ///< to be taken
  int64_t in_flight = 0;
  std::exception_ptr failure;
  DirectReader::Done done;
};

DirectReadQueue::DirectReadQueue(const DirectReadOptions& options,
                                 const std::vector<std::filesystem::path>& files,
                                 std::function<void()> work)
    : options_(options), files_(files), work_(std::move(work)) {}

DirectReadQueue::~DirectReadQueue() = default;

std::list<std::shared_ptr<DirectReadQueue::Job>>& DirectReadQueue::ListOf(const Job& job) {
  return job.urgent ? urgent_ : other_;
}

int64_t DirectReadQueue::Start(const std::vector<DirectReader::Range>& ranges, bool urgent,
                               DirectReader::Done done) {
  auto job = std::make_shared<Job>();
  job->urgent = urgent;
  job->done = std::move(done);
  for (const DirectReader::Range& range : ranges) {
    CHECK(reinterpret_cast<uintptr_t>(range.buffer) % DirectReader::kAlignment == 0 &&
              range.bytes > 0,
          "{} bytes at {}", range.bytes, fmt::ptr(range.buffer));
    const int64_t shift = DirectReader::Shift(range.offset);
    const int64_t length = DirectReader::BufferBytes(range.offset, range.bytes);
    for (int64_t at = 0; at < length; at += options_.piece_bytes) {
      const int64_t piece = std::min(options_.piece_bytes, length - at);
      job->pieces.push_back({job, range.file, range.offset - shift + at, piece,
                             std::min(piece, shift + range.bytes - at), range.buffer + at, false});
    }
  }
  CHECK(!job->pieces.empty());
  int64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    CHECK(!stopped_);
    number = job->number = next_number_++;
    live_.emplace(number, job);
    ListOf(*job).push_back(job);
  }
  wake_.notify_all();
  work_();
  return number;
}

void DirectReadQueue::Hurry(int64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(number);
  if (found == live_.end() || found->second->urgent) return;
  const std::shared_ptr<Job> job = found->second;
  const auto place = std::find(other_.begin(), other_.end(), job);
  if (place != other_.end()) urgent_.splice(urgent_.end(), other_, place);
  job->urgent = true;
}

bool DirectReadQueue::Cancel(int64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(number);
  if (found == live_.end()) return false;
  const std::shared_ptr<Job> job = found->second;
  if (!job->pieces.empty()) {
    ListOf(*job).remove(job);
    job->pieces.clear();  // breaks the circle of job and pieces, too
    if (!job->failure) {
      job->failure = std::make_exception_ptr(Error(ErrorCode::kCancelled, "the read was dropped"));
    }
  }
  if (job->in_flight > 0) return false;
  live_.erase(number);
  return true;
}

bool DirectReadQueue::Take(bool wait, Piece& piece) {
  std::unique_lock lock(mutex_);
  if (wait) {
    wake_.wait(lock, [&] { return stopped_ || !urgent_.empty() || !other_.empty(); });
  }
  std::list<std::shared_ptr<Job>>& list = urgent_.empty() ? other_ : urgent_;
  if (stopped_ || list.empty()) return false;
  const std::shared_ptr<Job> job = list.front();
  piece = std::move(job->pieces.front());
  job->pieces.pop_front();
  if (job->pieces.empty()) list.pop_front();
  ++job->in_flight;
  if (in_flight_++ == 0) busy_since_ = std::chrono::steady_clock::now();
  return true;
}

std::exception_ptr DirectReadQueue::Judge(Piece& piece, int64_t result, bool& goes_on) const {
  goes_on = false;
  if (result >= 0 && options_.fault) {
    const int fault = options_.fault(piece.offset, piece.again);
    if (fault != 0) result = -fault;
  }
  if (result >= piece.needed) return nullptr;
  goes_on = true;
  if (result == -EINTR || result == -EAGAIN) return nullptr;
  // What came of whole blocks is kept; the rest is asked for again.
  const int64_t whole =
      std::max<int64_t>(0, result) / DirectReader::kAlignment * DirectReader::kAlignment;
  piece.offset += whole;
  piece.buffer += whole;
  piece.length -= whole;
  piece.needed -= whole;
  if (whole > 0) return nullptr;
  if (!piece.again) {
    piece.again = true;
    return nullptr;
  }
  goes_on = false;
  const std::string reason =
      result < 0 ? std::strerror(static_cast<int>(-result)) : "the file ends before; it was cut";
  return std::make_exception_ptr(
      Error(ErrorCode::kIo,
            fmt::format("{}: cannot read {} bytes at offset {}, twice: {}; check the disk",
                        files_[static_cast<size_t>(piece.file)].string(), piece.needed,
                        piece.offset, reason)));
}

void DirectReadQueue::Finish(Piece piece, int64_t result) {
  const int64_t length = piece.length;
  bool goes_on = false;
  const std::exception_ptr failure = Judge(piece, result, goes_on);
  const std::shared_ptr<Job> job = piece.job;
  DirectReader::Done done;
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    figures_.bytes += std::clamp<int64_t>(result, 0, length);
    if (--in_flight_ == 0) {
      figures_.busy_seconds +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - busy_since_).count();
    }
    --job->in_flight;
    if (failure && !job->failure) job->failure = failure;
    if (stopped_ && goes_on && !job->failure) {  // nobody takes the rest any more
      job->failure = std::make_exception_ptr(Error(ErrorCode::kCancelled, "the reader ends"));
    }
    if (job->failure) {
      if (!job->pieces.empty()) ListOf(*job).remove(job);
      job->pieces.clear();
    } else if (goes_on) {
      if (job->pieces.empty()) ListOf(*job).push_front(job);
      job->pieces.push_front(std::move(piece));
      more = true;
    }
    if (job->in_flight == 0 && job->pieces.empty()) {
      done = std::move(job->done);
      live_.erase(job->number);
    }
  }
  if (more) {
    wake_.notify_one();
    work_();
  }
  if (done) done(job->failure);
}

void DirectReadQueue::Stop() {
  std::list<std::shared_ptr<Job>> dropped;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (auto* list : {&urgent_, &other_}) {
      for (const std::shared_ptr<Job>& job : *list) {
        job->pieces.clear();
        job->failure = std::make_exception_ptr(Error(ErrorCode::kCancelled, "the reader ends"));
        if (job->in_flight > 0) continue;  // Finish() tells it
        live_.erase(job->number);
        dropped.push_back(job);
      }
      list->clear();
    }
  }
  wake_.notify_all();
  work_();
  for (const std::shared_ptr<Job>& job : dropped) job->done(job->failure);
}

bool DirectReadQueue::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

DirectReadFigures DirectReadQueue::figures() const {
  const std::lock_guard lock(mutex_);
  DirectReadFigures figures = figures_;
  if (in_flight_ > 0) {
    figures.busy_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - busy_since_).count();
  }
  return figures;
}

}  // namespace toaster
