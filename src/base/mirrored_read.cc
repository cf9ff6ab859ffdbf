#include "base/mirrored_read.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace toaster {

namespace {

// A rate counts once it was measured over this much; the next one begins there, since the speed of
// a disk changes with who else uses it.
constexpr int64_t kMeasuredBytes = int64_t{64} << 20;

bool IsReadError(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return error.code() == ErrorCode::kIo;
  } catch (...) {
    return false;
  }
}

}  // namespace

size_t EndsFirst(const std::vector<double>& waiting, const std::vector<double>& rates,
                 double bytes) {
  size_t best = 0;
  for (size_t i = 1; i < waiting.size(); ++i) {
    if ((waiting[i] + bytes) / rates[i] < (waiting[best] + bytes) / rates[best]) best = i;
  }
  return best;
}

MirroredReader::MirroredReader(const std::vector<std::vector<std::filesystem::path>>& copies,
                               const DirectReadOptions& options) {
  CHECK(!copies.empty());
  for (const std::vector<std::filesystem::path>& files : copies) {
    CHECK(files.size() == copies[0].size());
    copies_.emplace_back().reader = std::make_unique<DirectReader>(files, options);
  }
}

MirroredReader::~MirroredReader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  for (Copy& copy : copies_) copy.reader.reset();
}

void MirroredReader::StartOn(size_t copy, int64_t id, Job& job, bool urgent) {
  job.copy = copy;
  copies_[copy].waiting += job.bytes;
  job.number = copies_[copy].reader->Start(
      job.ranges, urgent, [this, id](const std::exception_ptr& failure) { OnEnd(id, failure); });
}

int64_t MirroredReader::Start(std::vector<Range> ranges, bool urgent, Done done) {
  Job job;
  for (const Range& range : ranges) job.bytes += static_cast<double>(range.bytes);
  job.ranges = std::move(ranges);
  job.done = std::move(done);
  const std::lock_guard lock(mutex_);
  std::vector<double> waiting, rates;
  for (Copy& copy : copies_) {
    waiting.push_back(copy.waiting);
    rates.push_back(copy.rate);
  }
  const int64_t id = next_job_++;
  Job& placed = jobs_.emplace(id, std::move(job)).first->second;
  // A reader never tells of an end from within Start(), so the lock may be held.
  StartOn(EndsFirst(waiting, rates, placed.bytes), id, placed, urgent);
  return id;
}

void MirroredReader::OnEnd(int64_t id, const std::exception_ptr& failure) {
  Done done;
  {
    const std::lock_guard lock(mutex_);
    const auto found = jobs_.find(id);
    Job& job = found->second;
    Copy& copy = copies_[job.copy];
    copy.waiting -= job.bytes;
    if (!stopping_) MeasureRate(copy);  // while it ends, there is no reader to ask
    if (failure && !stopping_ && job.tries < copies_.size() && IsReadError(failure)) {
      ++job.tries;
      StartOn((job.copy + 1) % copies_.size(), id, job, true);
      return;
    }
    done = std::move(job.done);
    jobs_.erase(found);
  }
  done(failure);
}

void MirroredReader::MeasureRate(Copy& copy) {
  const DirectReadFigures now = copy.reader->figures();
  const int64_t bytes = now.bytes - copy.measured.bytes;
  const double seconds = now.busy_seconds - copy.measured.busy_seconds;
  if (bytes < kMeasuredBytes || seconds <= 0) return;
  copy.rate = static_cast<double>(bytes) / seconds;
  copy.measured = now;
}

void MirroredReader::Hurry(int64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found != jobs_.end()) copies_[found->second.copy].reader->Hurry(found->second.number);
}

bool MirroredReader::Cancel(int64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return false;
  Copy& copy = copies_[found->second.copy];
  if (!copy.reader->Cancel(found->second.number)) return false;
  copy.waiting -= found->second.bytes;
  jobs_.erase(found);
  return true;
}

DirectReadFigures MirroredReader::figures() const {
  DirectReadFigures all;
  for (const Copy& copy : copies_) {
    const DirectReadFigures figures = copy.reader->figures();
    all.bytes += figures.bytes;
    all.busy_seconds = std::max(all.busy_seconds, figures.busy_seconds);
  }
  return all;
}

}  // namespace toaster
