#include "server/session_generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <numeric>

#include "base/flush_denormals.h"
#include "server/api_error.h"

namespace toaster {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

}  // namespace

/// Shared by the thread that works on it and the stream that tells of it.
struct SessionGenerator::Task {
  GenerationJob job;
  SteadyClock::time_point submitted = SteadyClock::now();
  std::atomic<bool> cancelled{false};

  std::mutex mutex;
  std::condition_variable wake;
  std::deque<GeneratedToken> tokens;
  bool ended = false;
  GenerationEnd end = GenerationEnd::kLength;
  GenerationFigures figures;
  std::exception_ptr failure;

  void Push(GeneratedToken token) {
    const std::lock_guard lock(mutex);
    tokens.push_back(std::move(token));
    wake.notify_one();
  }
  void Finish() {
    const std::lock_guard lock(mutex);
    ended = true;
    wake.notify_one();
  }
};

class SessionGenerator::Stream : public GenerationStream {
 public:
  explicit Stream(std::shared_ptr<Task> task) : task_(std::move(task)) {}
  ~Stream() override { task_->cancelled = true; }

  Next Wait(std::chrono::milliseconds time, GeneratedToken& token) override {
    std::unique_lock lock(task_->mutex);
    task_->wake.wait_for(lock, time, [&] { return !task_->tokens.empty() || task_->ended; });
    if (!task_->tokens.empty()) {
      token = std::move(task_->tokens.front());
      task_->tokens.pop_front();
      return Next::kToken;
    }
    if (!task_->ended) return Next::kNothing;
    if (task_->failure) std::rethrow_exception(task_->failure);
    return Next::kEnd;
  }
  GenerationEnd end() const override { return task_->end; }
  GenerationFigures figures() const override {
    const std::lock_guard lock(task_->mutex);
    return task_->figures;
  }

 private:
  std::shared_ptr<Task> task_;
};

SessionGenerator::SessionGenerator(RunningModel& running, int64_t chunk, int64_t most_waiting)
    : running_(running),
      most_waiting_(most_waiting),
      chunk_(chunk),
      session_(std::in_place, running.model(), chunk),
      thread_([this] { Work(); }) {}

SessionGenerator::~SessionGenerator() {
  Stop();
  thread_.join();
}

void SessionGenerator::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& task : tasks_) task->cancelled = true;
    if (current_) current_->cancelled = true;
  }
  wake_.notify_all();
}

std::unique_ptr<GenerationStream> SessionGenerator::Submit(GenerationJob job) {
  auto task = std::make_shared<Task>();
  task->job = std::move(job);
  const std::lock_guard lock(mutex_);
  if (stopping_) throw ApiError(503, "", "the server is stopping; ask another one");
  if (static_cast<int64_t>(tasks_.size()) >= most_waiting_) {
    ApiError error(429, "",
                   fmt::format("{} requests are waiting already; try again later", most_waiting_));
    error.retry_after = 5;
    throw error;
  }
  tasks_.push_back(task);
  wake_.notify_one();
  return std::make_unique<Stream>(std::move(task));
}

int64_t SessionGenerator::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(tasks_.size());
}

int64_t SessionGenerator::running() const {
  const std::lock_guard lock(mutex_);
  return current_ ? 1 : 0;
}

std::vector<GenerationSlot> SessionGenerator::Slots() const {
  const std::lock_guard lock(mutex_);
  return {{0, current_ != nullptr, session_tokens_}};
}

void SessionGenerator::Work() {
  const ScopedFlushDenormals flush;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::shared_ptr<Task> task = std::move(tasks_.front());
    tasks_.pop_front();
    current_ = task;
    lock.unlock();
    try {
      if (!task->cancelled) Run(*task);
    } catch (...) {
      task->failure = std::current_exception();
    }
    task->Finish();
    lock.lock();
    current_ = nullptr;
    session_tokens_ = static_cast<int64_t>(session_->tokens().size());
    if (stopping_) {
      for (const auto& left : tasks_) left->Finish();
      return;
    }
  }
}

std::string SessionGenerator::MissReason(const Task& task) const {
  const std::vector<int32_t>& old = session_->tokens();
  const std::vector<int32_t>& prompt = task.job.prompt;
  if (old.empty()) return "nothing was cached";
  if (task.job.user_id != session_user_) return "the cache belongs to another user_id";
  const auto [a, b] = std::mismatch(old.begin(), old.end(), prompt.begin(), prompt.end());
  if (a == old.end()) return "";
  return fmt::format("the prompt differs from the cached one from token {} on", a - old.begin());
}

void SessionGenerator::Run(Task& task) {
  const GenerationJob& job = task.job;
  GenerationFigures figures;
  figures.queue_seconds = SecondsSince(task.submitted);
  figures.miss_reason = MissReason(task);
  const Config& config = running_.config();
  Sampler sampler(job.sampling, config.vocab_size);
  sampler.AcceptPrompt(job.prompt);
  if (job.user_id != session_user_) {
    session_.emplace(running_.model(), chunk_);
    session_user_ = job.user_id;
  }
  const auto cancelled = [&] { return task.cancelled.load(); };
  const auto prefill_start = SteadyClock::now();
  try {
    figures.cached_tokens = session_->Sync(
        job.prompt, [&](int64_t, int64_t) { return !cancelled(); }, job.stable_tokens);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) return;
    throw;
  }
  figures.prefill_seconds = SecondsSince(prefill_start);
  const auto publish = [&] {
    const std::lock_guard lock(task.mutex);
    task.figures = figures;
  };
  publish();
  const auto decode_start = SteadyClock::now();
  std::vector<int32_t> tokens = job.prompt;
  for (int64_t count = 0; count < job.max_tokens && !cancelled(); ++count) {
    if (count > 0) session_->Sync(tokens);
    const int32_t token = sampler.Sample(session_->logits(), static_cast<int64_t>(tokens.size()));
    if (token == config.eos_token_id && !job.ignore_eos) {
      task.end = GenerationEnd::kEndToken;
      break;
    }
    sampler.Accept(token);
    tokens.push_back(token);
    GeneratedToken generated = {token, 0, {}};
    if (job.logprobs >= 0) generated = TokenWithLogprobs(session_->logits(), token, job.logprobs);
    figures.decode_seconds = SecondsSince(decode_start);
    publish();
    task.Push(std::move(generated));
  }
  figures.decode_seconds = SecondsSince(decode_start);
  publish();
}

GeneratedToken TokenWithLogprobs(std::span<const float> logits, int32_t token, int64_t count) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - most));
  const double base = static_cast<double>(most) + std::log(sum);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - base);
  };
  GeneratedToken result = {token, logprob(token), {}};
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto kept =
      static_cast<ptrdiff_t>(std::min<size_t>(static_cast<size_t>(count), order.size()));
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (ptrdiff_t i = 0; i < kept; ++i)
    result.alternatives.push_back(
        {order[static_cast<size_t>(i)], logprob(order[static_cast<size_t>(i)])});
  return result;
}

}  // namespace toaster
