#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/direct_read_queue.h"

namespace toaster {

struct DirectReadRing::State {
  io_uring ring{};
  bool ring_there = false;
  int event = -1;
  uint64_t event_count = 0;  // the ring reads the eventfd into it
  int in_flight = 0;
  const std::vector<int>* descriptors = nullptr;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (ring_there) io_uring_queue_exit(&ring);
    if (event >= 0) close(event);
  }
};

std::unique_ptr<DirectReadRing> DirectReadRing::Create(int in_flight,
                                                       const std::vector<int>& descriptors) {
  auto state = std::make_unique<State>();
  state->in_flight = in_flight;
  state->descriptors = &descriptors;
  state->event = eventfd(0, EFD_CLOEXEC);
  if (state->event < 0) return nullptr;
  if (io_uring_queue_init(static_cast<unsigned>(in_flight) + 1, &state->ring, 0) != 0)
    return nullptr;
  state->ring_there = true;
  // Kernels before 5.6 have rings without plain reads.
  const std::unique_ptr<io_uring_probe, decltype(&io_uring_free_probe)> probe(
      io_uring_get_probe_ring(&state->ring), &io_uring_free_probe);
  if (probe == nullptr || io_uring_opcode_supported(probe.get(), IORING_OP_READ) == 0)
    return nullptr;
  return std::unique_ptr<DirectReadRing>(new DirectReadRing(std::move(state)));
}

DirectReadRing::DirectReadRing(std::unique_ptr<State> state) : state_(std::move(state)) {}

DirectReadRing::~DirectReadRing() {
  if (thread_.joinable()) thread_.join();
}

void DirectReadRing::Serve(DirectReadQueue& queue) {
  thread_ = std::thread([this, &queue] { Work(queue); });
}

void DirectReadRing::Wake() {
  const uint64_t one = 1;
  // Fails only if the counter is full, and then the thread wakes anyway.
  [[maybe_unused]] const ssize_t written = write(state_->event, &one, sizeof(one));
}

void DirectReadRing::Work(DirectReadQueue& queue) {
  State& state = *state_;
  std::vector<DirectReadQueue::Piece> pieces(static_cast<size_t>(state.in_flight));
  std::vector<size_t> free;
  for (size_t i = pieces.size(); i > 0; --i) free.push_back(i - 1);
  const size_t event_mark = pieces.size();
  bool event_armed = false;
  for (;;) {
    if (!event_armed) {
      io_uring_sqe* entry = io_uring_get_sqe(&state.ring);
      io_uring_prep_read(entry, state.event, &state.event_count, sizeof(state.event_count), 0);
      entry->user_data = event_mark;
      event_armed = true;
    }
    while (!free.empty() && queue.Take(false, pieces[free.back()])) {
      const DirectReadQueue::Piece& piece = pieces[free.back()];
      io_uring_sqe* entry = io_uring_get_sqe(&state.ring);
      CHECK(entry != nullptr);
      io_uring_prep_read(entry, (*state.descriptors)[static_cast<size_t>(piece.file)], piece.buffer,
                         static_cast<unsigned>(piece.length), static_cast<uint64_t>(piece.offset));
      entry->user_data = free.back();
      free.pop_back();
    }
    if (free.size() == pieces.size() && queue.stopped()) break;
    const int submitted = io_uring_submit_and_wait(&state.ring, 1);
    CHECK(submitted >= 0 || submitted == -EINTR || submitted == -EAGAIN || submitted == -EBUSY,
          "io_uring_submit_and_wait: {}", submitted);
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(&state.ring, &completion) == 0) {
      const auto mark = static_cast<size_t>(completion->user_data);
      const int64_t result = completion->res;
      io_uring_cqe_seen(&state.ring, completion);
      if (mark == event_mark) {
        event_armed = false;
        continue;
      }
      free.push_back(mark);
      queue.Finish(std::move(pieces[mark]), result);
    }
  }
  // The read of the eventfd is cancelled with the ring.
}

}  // namespace toaster
