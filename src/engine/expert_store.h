#pragma once

// Routed experts that do not all fit into memory: a cache of them, filled from the shards past the
// page cache.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/mirrored_read.h"
#include "checkpoint/load_weights.h"
#include "engine/expert_uses.h"
#include "model/block.h"

namespace toaster {

struct ExpertStoreOptions {
  int64_t memory_bytes = 0;  ///< for experts; at least LeastExpertBytes()
  bool forecasts = true;     ///< begin to read what the next block will probably choose
  /// Files of further copies of the model, see FindModelCopy(): reads are shared among all.
  std::vector<std::vector<std::filesystem::path>> copies;
  /// A directory where counts of uses are kept for the next run, which begins with reading the most
  /// used; empty: none.
  std::filesystem::path history;
  std::function<void(const std::string&)> note;  ///< told when counts cannot be kept; may be null
  DirectReadOptions reads;
};

/// What a store has done so far.
struct ExpertStoreFigures {
  int64_t used = 0;                 ///< experts opened, each block of each step counted
  int64_t missed = 0;               ///< of them, not in memory and not on their way for a forecast
  int64_t read_for_forecast = 0;    ///< read before they were needed
  int64_t forecast_in_vain = 0;     ///< of them, then not needed
  int64_t needed_bytes = 0;         ///< read, of experts that were then used
  int64_t remembered = 0;           ///< read at the start because an earlier run used them
  int64_t read_bytes = 0;           ///< all that came from the disk
  std::vector<int64_t> copy_bytes;  ///< of them, from each copy, the model's own files first
  double read_seconds = 0;          ///< in which at least one read was in flight
  double wait_seconds = 0;          ///< in which computing stood still for lack of an expert
};

/// Where an expert's tensors lie: ranges of files, each as long as neighbours allow, and how much
/// memory they take once read.
struct ExpertPlace {
  std::vector<DirectReader::Range> ranges;  ///< buffers are null
  int64_t file_bytes = 0;                   ///< of the ranges
  int64_t buffer_bytes = 0;                 ///< with what aligned reads add
};

/// Of every routed expert of a model in files, [block * experts + number].
std::vector<ExpertPlace> FindExperts(const LoadedModel& model);

/// The memory that a store needs so that a token's experts of one block fit with those of the next.
int64_t LeastExpertBytes(const LoadedModel& model);

/// Serves the experts of one model from as much memory as it is given. What is needed is read at
/// once, the block's experts in the order of the file, several reads in flight; what a forecast
/// names is read behind that, and dropped when the router chooses otherwise. The least often used
/// experts make room: uses are counted with weights that halve every kHalfLife tokens. What is free
/// at the start is filled with the experts that earlier runs used most, while computing goes on.
///
/// A pass over many tokens chooses about every expert of every block, more than fit; in what order
/// they were used last says nothing then. Some memory is set aside for experts that pass through
/// it, the others stay where they are.
///
/// One thread computes; reads end on threads of the reader. An expert that cannot be read from any
/// copy fails the step that needs it with Error(kIo), one with damaged scales with
/// Error(kCorruptFile); the next step tries again.
class ExpertStore : public ExpertSupply {
 public:
  static constexpr double kHalfLife = 512;  ///< the best of those compared, docs/performance.md
  /// Experts handed out at a time in a wide pass: the memory of those that are done is what the
  /// next reads wait for.
  static constexpr int64_t kAtOnce = 16;
  /// Whether a pass in which so many experts are chosen, each choice counted, is wide: it chooses
  /// about every one of a block.
  static bool IsWide(const Config& config, int64_t choices) {
    return choices >= config.n_routed_experts;
  }
  /// Experts that a wide pass holds without keeping them.
  static int64_t MostPassing(const Config& config, int64_t capacity);

  /// The model is borrowed; its experts' views of the files are never followed. Throws
  /// Error(kInvalidArgument) if the memory does not suffice, and what DirectReader throws.
  ExpertStore(const LoadedModel& model, ExpertStoreOptions options);
  ~ExpertStore() override;

  ExpertSource& Open(int64_t block, const Routing& routing) override;
  bool WantsForecasts() const override { return options_.forecasts; }
  void Expect(int64_t block, const Routing& routing) override;

  /// Experts that fit.
  int64_t capacity() const { return static_cast<int64_t>(slots_.size()); }
  DirectReadMethod method() const { return reader_->method(); }
  ExpertStoreFigures figures() const;

 private:
  class Source;
  enum class State { kAbsent, kReading, kPresent };
  enum class Purpose { kNeed, kForecast, kRemembered };
  struct Expert {
    State state = State::kAbsent;
    int32_t slot = -1;        // unless absent
    int64_t job = -1;         // while reading
    bool needed = false;      // by the open block, and not yet given back
    bool expected = false;    // by a forecast whose block was not opened yet
    bool early = false;       // read for a forecast, not yet used
    bool remembered = false;  // read for an earlier run's sake
    bool passing = false;     // read in a wide pass, which has no use for it afterwards
    bool checked = false;     // its scales, since it was read
    std::exception_ptr failure;
    ExpertWeights matrices;  // views of the slot
  };

  int64_t IndexOf(int64_t block, int64_t number) const {
    return block * experts_per_block_ + number;
  }
  /// All with the lock held.
  void BeginPass();
  int32_t TakeSlot(int64_t index, Purpose purpose, bool& passing);
  bool StartRead(int64_t index, Purpose purpose);
  void Unexpect(int64_t index);  // and drops its read if it has not begun
  void Leave(Expert& expert);    // its slot, which is not changed
  void ReadNeeded();
  void ReadExpected();
  void ReadRemembered();
  void Count(const Routing& routing, int64_t block);
  void SaveHistory();
  void SetViews(int64_t index);
  void CheckExpert(int64_t index);

  int64_t Acquire(std::span<int32_t> wanted, bool wait);
  void Release(std::span<const int32_t> experts);
  void OnRead(int64_t index, const std::exception_ptr& failure);

  const LoadedModel& model_;
  const ExpertStoreOptions options_;
  const int64_t experts_per_block_;
  const std::vector<ExpertPlace> places_;
  int64_t slot_bytes_ = 0;
  ReadMemory memory_;

  mutable std::mutex mutex_;
  std::condition_variable read_done_;
  std::vector<Expert> experts_;
  std::vector<int64_t> slots_;   // the expert in each, -1: free
  std::vector<int64_t> needed_;  // of the open block, in the order of the files, not yet given back
  std::vector<int64_t> expected_;  // by forecasts, not yet opened
  int64_t open_block_ = 0;         // -1: a pass has begun and opened none yet
  bool wide_ = false;              // the pass at work chooses about every expert of a block
  int64_t passing_ = 0;            // experts that are
  ExpertUses uses_;
  std::vector<int64_t> remembered_;  // still to be read, the least used first
  std::string identity_;             // of the model in its history
  std::chrono::steady_clock::time_point saved_;
  ExpertStoreFigures figures_;

  std::unique_ptr<Source> source_;
  std::unique_ptr<MirroredReader> reader_;  // last: ends before what its reads write to
};

}  // namespace toaster
