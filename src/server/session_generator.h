#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "engine/running_model.h"
#include "engine/session.h"
#include "server/generator.h"

namespace toaster {

/// Does one job after the other on one session, in the order they came. The model is borrowed and
/// belongs to its thread until it is destroyed.
class SessionGenerator : public Generator {
 public:
  SessionGenerator(RunningModel& running, int64_t chunk, int64_t most_waiting);
  ~SessionGenerator() override;
  /// Cancels what is left: every stream ends. Nothing may be submitted any more.
  void Stop();

  std::unique_ptr<GenerationStream> Submit(GenerationJob job) override;
  int64_t waiting() const override;
  int64_t running() const override;
  std::vector<GenerationSlot> Slots() const override;

 private:
  struct Task;
  class Stream;
  void Work();
  void Run(Task& task);
  std::string MissReason(const Task& task) const;

  RunningModel& running_;
  const int64_t most_waiting_;
  const int64_t chunk_;
  std::optional<Session> session_;  ///< always set
  std::string session_user_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Task>> tasks_;
  std::shared_ptr<Task> current_;  ///< being worked on
  bool stopping_ = false;
  int64_t session_tokens_ = 0;
  std::thread thread_;
};

/// The natural logarithm of the probability of `token` and of the `count` most likely tokens, from
/// logits [vocabulary].
GeneratedToken TokenWithLogprobs(std::span<const float> logits, int32_t token, int64_t count);

}  // namespace toaster
