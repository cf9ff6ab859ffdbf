#include "base/direct_read.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <utility>

#include "base/check.h"
#include "base/direct_read_queue.h"
#include "base/error.h"

namespace toaster {

namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

struct Opened {
  int descriptor;
  bool direct;
};

Opened Open(const std::filesystem::path& path) {
  Opened file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT), true};
  if (file.descriptor < 0 && errno == EINVAL) {
    file = {open(path.c_str(), O_RDONLY | O_CLOEXEC), false};
  }
  if (file.descriptor >= 0) return file;
  const int reason = errno;
  throw Error(reason == ENOENT || reason == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo,
              fmt::format("{}: cannot open: {}; check the path and its permissions", path.string(),
                          std::strerror(reason)));
}

}  // namespace

DirectReader::DirectReader(const std::vector<std::filesystem::path>& files,
                           DirectReadOptions options)
    : files_(files) {
  CHECK(options.in_flight >= 1 && options.piece_bytes >= kAlignment &&
            options.piece_bytes % kAlignment == 0,
        "{} in flight, pieces of {} bytes", options.in_flight, options.piece_bytes);
  try {
    for (const std::filesystem::path& path : files_) {
      const Opened file = Open(path);
      descriptors_.push_back(file.descriptor);
      direct_.push_back(file.direct);
    }
  } catch (...) {
    for (const int descriptor : descriptors_) close(descriptor);
    throw;
  }
  if (options.method == DirectReadMethod::kRing) {
    ring_ = DirectReadRing::Create(options.in_flight, descriptors_);
  }
  queue_ = std::make_unique<DirectReadQueue>(options, files_, [this] {
    if (ring_) ring_->Wake();
  });
  if (ring_) {
    ring_->Serve(*queue_);
    return;
  }
  for (int i = 0; i < options.in_flight; ++i) {
    threads_.emplace_back([this] {
      DirectReadQueue::Piece piece;
      while (queue_->Take(true, piece)) {
        const ssize_t count =
            pread(descriptors_[static_cast<size_t>(piece.file)], piece.buffer,
                  static_cast<size_t>(piece.length), static_cast<off_t>(piece.offset));
        const int64_t result = count < 0 ? -errno : count;
        queue_->Finish(std::move(piece), result);
      }
    });
  }
}

DirectReader::~DirectReader() {
  queue_->Stop();
  for (std::thread& thread : threads_) thread.join();
  ring_.reset();
  for (const int descriptor : descriptors_) close(descriptor);
}

DirectReadMethod DirectReader::method() const {
  return ring_ ? DirectReadMethod::kRing : DirectReadMethod::kThreads;
}

bool DirectReader::direct(int file) const { return direct_[static_cast<size_t>(file)]; }

int64_t DirectReader::Start(const std::vector<Range>& ranges, bool urgent, Done done) {
  return queue_->Start(ranges, urgent, std::move(done));
}

void DirectReader::Hurry(int64_t job) { queue_->Hurry(job); }

bool DirectReader::Cancel(int64_t job) { return queue_->Cancel(job); }

void DirectReader::Read(const std::vector<Range>& ranges) {
  std::promise<void> promise;
  std::future<void> future = promise.get_future();
  Start(ranges, true, [&promise](const std::exception_ptr& failure) {
    failure ? promise.set_exception(failure) : promise.set_value();
  });
  future.get();
}

DirectReadFigures DirectReader::figures() const { return queue_->figures(); }

ReadMemory::ReadMemory(int64_t bytes) {
  if (bytes <= 0) return;
  const int64_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  // Room to begin at a huge page.
  const auto reserved = static_cast<size_t>(whole + kHugePage);
  void* address = mmap(nullptr, reserved, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("cannot get {} bytes of memory: {}; give a smaller --memory", bytes,
                            std::strerror(errno)));
  }
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) munmap(address, aligned - begin);
  const uintptr_t end = aligned + static_cast<uintptr_t>(whole);
  if (begin + reserved > end) munmap(reinterpret_cast<void*>(end), begin + reserved - end);
  data_ = reinterpret_cast<std::byte*>(aligned);
  size_ = whole;
  // Advice only: without it reads are slower.
  madvise(data_, static_cast<size_t>(size_), MADV_HUGEPAGE);
}

ReadMemory::~ReadMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(size_));
}

ReadMemory::ReadMemory(ReadMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

ReadMemory& ReadMemory::operator=(ReadMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace toaster
