#include "engine/expert_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"
#include "engine/model_identity.h"

namespace toaster {

namespace {

// Tensors of one expert that lie this close together are read in one go.
constexpr int64_t kGap = 64 << 10;

// Reads of what earlier runs used, at a time: forecasts queue behind them.
constexpr int kRememberedReads = 2;

constexpr std::chrono::minutes kSaveHistoryEvery{5};

// A stretch of a shard, by its place in memory.
struct Stretch {
  int file;
  int64_t offset, bytes;
};

Stretch FindStretch(const Checkpoint& checkpoint, const uint8_t* data, int64_t bytes) {
  const auto& shards = checkpoint.shards();
  for (size_t file = 0; file < shards.size(); ++file) {
    const auto* begin = reinterpret_cast<const uint8_t*>(shards[file].bytes().data());
    if (data >= begin && data + bytes <= begin + shards[file].bytes().size())
      return {static_cast<int>(file), data - begin, bytes};
  }
  CHECK(false, "a tensor outside of every shard");
  return {};
}

template <typename Visit>
void VisitParts(const ExpertWeights& expert, const Visit& visit) {
  for (const Matrix* matrix : {&expert.w1, &expert.w2, &expert.w3}) {
    visit(matrix->data, matrix->data_bytes());
    if (matrix->quantised()) visit(matrix->scales, matrix->scale_bytes());
  }
}

ExpertPlace PlaceOf(const LoadedModel& model, const ExpertWeights& expert) {
  std::vector<Stretch> stretches;
  VisitParts(expert, [&](const uint8_t* data, int64_t bytes) {
    stretches.push_back(FindStretch(model.checkpoint, data, bytes));
  });
  std::sort(stretches.begin(), stretches.end(), [](const Stretch& a, const Stretch& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  });
  ExpertPlace place;
  for (const Stretch& next : stretches) {
    if (!place.ranges.empty()) {
      DirectReader::Range& last = place.ranges.back();
      if (last.file == next.file && next.offset <= last.offset + last.bytes + kGap) {
        last.bytes = std::max(last.bytes, next.offset + next.bytes - last.offset);
        continue;
      }
    }
    place.ranges.push_back({next.file, next.offset, next.bytes, nullptr});
  }
  for (const DirectReader::Range& range : place.ranges) {
    place.file_bytes += range.bytes;
    place.buffer_bytes += DirectReader::BufferBytes(range.offset, range.bytes);
  }
  return place;
}

int64_t MostBytes(const std::vector<ExpertPlace>& places) {
  int64_t most = 0;
  for (const ExpertPlace& place : places) most = std::max(most, place.buffer_bytes);
  return most;
}

}  // namespace

std::vector<ExpertPlace> FindExperts(const LoadedModel& model) {
  std::vector<ExpertPlace> places;
  for (int64_t block = 0; block < model.config.total_blocks(); ++block) {
    for (const ExpertWeights& expert : model.weights.block(block).ffn.experts)
      places.push_back(PlaceOf(model, expert));
  }
  return places;
}

int64_t LeastExpertBytes(const LoadedModel& model) {
  return 2 * model.config.num_experts_per_tok * MostBytes(FindExperts(model));
}

/// The open block's experts.
class ExpertStore::Source : public ExpertSource {
 public:
  explicit Source(ExpertStore& store) : store_(store) {}
  int64_t Acquire(std::span<int32_t> wanted, bool wait) override {
    return store_.Acquire(wanted, wait);
  }
  ExpertMatrices Matrices(int32_t expert) const override {
    // Acquired, so nobody changes it.
    const auto index = static_cast<size_t>(store_.IndexOf(store_.open_block_, expert));
    return MatricesOf(store_.experts_[index].matrices);
  }
  void Release(std::span<const int32_t> experts) override { store_.Release(experts); }

 private:
  ExpertStore& store_;
};

ExpertStore::ExpertStore(const LoadedModel& model, ExpertStoreOptions options)
    : model_(model),
      options_(std::move(options)),
      experts_per_block_(model.config.n_routed_experts),
      places_(FindExperts(model)),
      slot_bytes_(MostBytes(places_)),
      experts_(places_.size()),
      uses_(static_cast<int64_t>(places_.size()), kHalfLife),
      source_(std::make_unique<Source>(*this)) {
  const int64_t least = 2 * model.config.num_experts_per_tok * slot_bytes_;
  if (options_.memory_bytes < least) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} of memory are left for experts, and a token's of two blocks take "
                            "{}; give more --memory or a smaller --context",
                            BytesText(static_cast<double>(options_.memory_bytes)),
                            BytesText(static_cast<double>(least))));
  }
  const int64_t count =
      std::min<int64_t>(options_.memory_bytes / slot_bytes_, static_cast<int64_t>(places_.size()));
  memory_ = ReadMemory(count * slot_bytes_);
  slots_.assign(static_cast<size_t>(count), -1);
  for (int64_t block = 0; block < model.config.total_blocks(); ++block) {
    for (int64_t e = 0; e < experts_per_block_; ++e) {
      experts_[static_cast<size_t>(IndexOf(block, e))].matrices =
          model.weights.block(block).ffn.experts[static_cast<size_t>(e)];
    }
  }
  std::vector<std::vector<std::filesystem::path>> copies{model.checkpoint.ShardPaths()};
  copies.insert(copies.end(), options_.copies.begin(), options_.copies.end());
  reader_ = std::make_unique<MirroredReader>(copies, options_.reads);
  if (options_.history.empty()) return;
  identity_ = ModelIdentity(model);
  saved_ = std::chrono::steady_clock::now();
  if (!uses_.Load(options_.history / (identity_ + ".uses"), identity_)) return;
  remembered_ = uses_.MostUsed();
  remembered_.resize(std::min(remembered_.size(), slots_.size()));
  std::reverse(remembered_.begin(), remembered_.end());
  const std::lock_guard lock(mutex_);
  for (int i = 0; i < kRememberedReads; ++i) ReadRemembered();
}

ExpertStore::~ExpertStore() {
  {
    const std::lock_guard lock(mutex_);
    remembered_.clear();  // reads that end start no more of them
  }
  if (!options_.history.empty()) SaveHistory();
}

// Points the matrices into the slot; their places there follow from their places in the file.
void ExpertStore::SetViews(int64_t index) {
  Expert& expert = experts_[static_cast<size_t>(index)];
  const ExpertWeights& stored = model_.weights.block(index / experts_per_block_)
                                    .ffn.experts[static_cast<size_t>(index % experts_per_block_)];
  const auto moved = [&](const uint8_t* data, int64_t bytes) -> const uint8_t* {
    const Stretch stretch = FindStretch(model_.checkpoint, data, bytes);
    const std::byte* buffer = memory_.data() + expert.slot * slot_bytes_;
    for (const DirectReader::Range& range : places_[static_cast<size_t>(index)].ranges) {
      if (range.file == stretch.file && stretch.offset >= range.offset &&
          stretch.offset < range.offset + range.bytes) {
        return reinterpret_cast<const uint8_t*>(buffer + DirectReader::Shift(range.offset) +
                                                (stretch.offset - range.offset));
      }
      buffer += DirectReader::BufferBytes(range.offset, range.bytes);
    }
    CHECK(false, "expert {} has a tensor outside of its ranges", index);
    return nullptr;
  };
  const auto move = [&](const Matrix& from, Matrix& to) {
    to.data = moved(from.data, from.data_bytes());
    if (from.quantised()) to.scales = moved(from.scales, from.scale_bytes());
  };
  move(stored.w1, expert.matrices.w1);
  move(stored.w2, expert.matrices.w2);
  move(stored.w3, expert.matrices.w3);
}

// What a wide pass may hold of experts it does not keep: enough for the disk to read ahead while
// attention is computed. None if all fit.
int64_t ExpertStore::MostPassing(const Config& config, int64_t capacity) {
  if (capacity >= config.num_hidden_layers * config.n_routed_experts) return 0;
  return std::clamp<int64_t>(config.n_routed_experts / 2, 1, capacity / 2);
}

void ExpertStore::BeginPass() {
  for (const int64_t index : slots_) {
    if (index >= 0) experts_[static_cast<size_t>(index)].passing = false;
  }
  passing_ = 0;
}

// A free slot, or that of the expert whose past uses weigh least among those that nobody waits
// for; forecasts give way to needs. -1 if there is none. In a wide pass experts that pass make room
// before any other, which do so only as long as not too many pass; while memory is free, each block
// has a share of what stays.
int32_t ExpertStore::TakeSlot(int64_t index, Purpose purpose, bool& passing) {
  const int64_t block = index / experts_per_block_;
  const int64_t most = MostPassing(model_.config, capacity());
  int64_t best = -1, free = -1, kept = 0;
  std::tuple<bool, bool, double> least;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    const int64_t there = slots_[slot];
    if (there < 0) {
      free = static_cast<int64_t>(slot);
      continue;
    }
    const Expert& expert = experts_[static_cast<size_t>(there)];
    kept += there / experts_per_block_ == block && !expert.passing ? 1 : 0;
    if (expert.state != State::kPresent || expert.needed) continue;
    if (purpose == Purpose::kForecast && expert.expected) continue;
    const bool stays = wide_ && most > 0 && !expert.passing;
    if (stays && passing_ >= most) continue;
    const std::tuple<bool, bool, double> worth{expert.expected, stays, uses_.weight(there)};
    if (best < 0 || worth < least) {
      best = static_cast<int64_t>(slot);
      least = worth;
    }
  }
  const int64_t share = (capacity() - most) / model_.config.num_hidden_layers;
  passing = wide_ && most > 0 && purpose != Purpose::kRemembered && (free < 0 || kept >= share);
  if (free >= 0 && (!passing || passing_ < most)) return static_cast<int32_t>(free);
  if (best < 0) return -1;
  Expert& out = experts_[static_cast<size_t>(slots_[static_cast<size_t>(best)])];
  if (out.early) ++figures_.forecast_in_vain;
  Leave(out);
  slots_[static_cast<size_t>(best)] = -1;
  return static_cast<int32_t>(best);
}

void ExpertStore::Leave(Expert& expert) {
  passing_ -= expert.passing ? 1 : 0;
  expert.passing = expert.early = false;
  expert.state = State::kAbsent;
  expert.slot = -1;
}

bool ExpertStore::StartRead(int64_t index, Purpose purpose) {
  bool passing = false;
  const int32_t slot = TakeSlot(index, purpose, passing);
  if (slot < 0) return false;
  Expert& expert = experts_[static_cast<size_t>(index)];
  expert.slot = slot;
  expert.state = State::kReading;
  expert.checked = false;
  expert.failure = nullptr;
  expert.passing = passing;
  passing_ += expert.passing ? 1 : 0;
  slots_[static_cast<size_t>(slot)] = index;
  std::vector<DirectReader::Range> ranges = places_[static_cast<size_t>(index)].ranges;
  std::byte* buffer = memory_.data() + slot * slot_bytes_;
  for (DirectReader::Range& range : ranges) {
    range.buffer = buffer;
    buffer += DirectReader::BufferBytes(range.offset, range.bytes);
  }
  // The reader never calls back from Start(), so the lock may be held.
  expert.job = reader_->Start(std::move(ranges), purpose == Purpose::kNeed,
                              [this, index](const std::exception_ptr& e) { OnRead(index, e); });
  return true;
}

void ExpertStore::OnRead(int64_t index, const std::exception_ptr& failure) {
  {
    const std::lock_guard lock(mutex_);
    Expert& expert = experts_[static_cast<size_t>(index)];
    expert.job = -1;
    if (failure) {
      slots_[static_cast<size_t>(expert.slot)] = -1;
      Leave(expert);
      try {
        std::rethrow_exception(failure);
      } catch (const Error& error) {
        // Dropped is not failed: whoever needs it by now has it read again.
        if (error.code() != ErrorCode::kCancelled) expert.failure = failure;
      }
    } else {
      expert.state = State::kPresent;
      SetViews(index);
    }
    if (std::exchange(expert.remembered, false)) ReadRemembered();
  }
  read_done_.notify_all();
}

void ExpertStore::ReadNeeded() {
  for (const int64_t index : needed_) {
    const Expert& expert = experts_[static_cast<size_t>(index)];
    if (expert.state == State::kAbsent && !expert.failure && !StartRead(index, Purpose::kNeed))
      return;
  }
}

// Begins to read the next one into memory that is free; when none is any more, the rest is left.
void ExpertStore::ReadRemembered() {
  while (!remembered_.empty()) {
    const int64_t index = remembered_.back();
    remembered_.pop_back();
    if (std::find(slots_.begin(), slots_.end(), -1) == slots_.end()) {
      remembered_.clear();
    } else if (experts_[static_cast<size_t>(index)].state == State::kAbsent) {
      StartRead(index, Purpose::kRemembered);
      experts_[static_cast<size_t>(index)].remembered = true;
      ++figures_.remembered;
      return;
    }
  }
}

void ExpertStore::Count(const Routing& routing, int64_t block) {
  for (const int32_t number : routing.experts) uses_.Add(IndexOf(block, number));
  // A block is opened once a step, so the last one ends it.
  if (block + 1 != model_.config.num_hidden_layers) return;
  uses_.Age(static_cast<double>(routing.experts.size()) /
            static_cast<double>(std::max<int64_t>(1, routing.experts_per_token)));
  if (!options_.history.empty() && std::chrono::steady_clock::now() - saved_ > kSaveHistoryEvery) {
    SaveHistory();
  }
}

void ExpertStore::SaveHistory() {
  saved_ = std::chrono::steady_clock::now();
  try {
    uses_.Save(options_.history / (identity_ + ".uses"), identity_);
  } catch (const Error& error) {  // costs the next start time, nothing else
    if (options_.note) options_.note(error.what());
  }
}

ExpertSource& ExpertStore::Open(int64_t block, const Routing& routing) {
  const std::lock_guard lock(mutex_);
  if (block <= open_block_) BeginPass();
  wide_ = IsWide(model_.config, static_cast<int64_t>(routing.experts.size()));
  open_block_ = block;
  // What an earlier step left behind when it failed.
  for (const int64_t index : needed_) experts_[static_cast<size_t>(index)].needed = false;
  needed_.clear();
  for (const int32_t number : routing.experts) {
    const int64_t index = IndexOf(block, number);
    Expert& expert = experts_[static_cast<size_t>(index)];
    if (std::exchange(expert.needed, true)) continue;
    needed_.push_back(index);
    expert.failure = nullptr;
    ++figures_.used;
    if (expert.state == State::kAbsent) {
      ++figures_.missed;
    } else if (expert.state == State::kReading) {
      reader_->Hurry(expert.job);
    }
    if (expert.state != State::kPresent || expert.early)
      figures_.needed_bytes += places_[static_cast<size_t>(index)].file_bytes;
    expert.early = false;
  }
  // Forecasts for this block that did not come true, and any for blocks that never came.
  std::erase_if(expected_, [&](int64_t index) {
    if (index / experts_per_block_ > block) return false;
    Unexpect(index);
    return true;
  });
  std::sort(needed_.begin(), needed_.end(), [&](int64_t a, int64_t b) {
    const DirectReader::Range &first = places_[static_cast<size_t>(a)].ranges[0],
                              &second = places_[static_cast<size_t>(b)].ranges[0];
    return std::pair(first.file, first.offset) < std::pair(second.file, second.offset);
  });
  ReadNeeded();
  Count(routing, block);
  return *source_;
}

void ExpertStore::Unexpect(int64_t index) {
  Expert& expert = experts_[static_cast<size_t>(index)];
  expert.expected = false;
  if (expert.needed || expert.remembered || expert.state != State::kReading ||
      !reader_->Cancel(expert.job)) {
    return;
  }
  slots_[static_cast<size_t>(expert.slot)] = -1;
  expert.job = -1;
  Leave(expert);
  ++figures_.forecast_in_vain;
}

void ExpertStore::Expect(int64_t block, const Routing& routing) {
  const std::lock_guard lock(mutex_);
  if (block <= open_block_) {
    BeginPass();
    open_block_ = -1;
  }
  wide_ = IsWide(model_.config, static_cast<int64_t>(routing.experts.size()));
  // What the block's tokens give to each expert together.
  std::map<int64_t, float> named;
  for (size_t i = 0; i < routing.experts.size(); ++i) {
    named[IndexOf(block, routing.experts[i])] +=
        i < routing.weights.size() ? routing.weights[i] : 0.0f;
  }
  // An earlier forecast for the block gives way, but for what both name.
  std::erase_if(expected_, [&](int64_t index) {
    if (index / experts_per_block_ != block || named.contains(index)) return false;
    Unexpect(index);
    return true;
  });
  // Half of the memory stays with what past uses recommend. Where that is no matter, the surest
  // come first, so that what a better forecast drops has not begun; otherwise the order is the
  // file's.
  const int64_t most = capacity() / 2;
  std::vector<std::pair<float, int64_t>> order;
  order.reserve(named.size());
  const bool all_fit = static_cast<int64_t>(named.size()) <= most;
  for (const auto& [index, weight] : named) order.emplace_back(all_fit ? -weight : 0.0f, index);
  std::sort(order.begin(), order.end());
  int64_t reads = std::count_if(expected_.begin(), expected_.end(), [&](int64_t index) {
    return experts_[static_cast<size_t>(index)].state != State::kPresent;
  });
  for (const auto& [unsure, index] : order) {
    Expert& expert = experts_[static_cast<size_t>(index)];
    if (expert.expected) continue;
    if (expert.state != State::kPresent && ++reads > most) break;
    expert.expected = true;
    expected_.push_back(index);
  }
  ReadExpected();
}

void ExpertStore::ReadExpected() {
  for (const int64_t index : expected_) {
    Expert& expert = experts_[static_cast<size_t>(index)];
    if (expert.state != State::kAbsent || expert.failure) continue;
    if (!StartRead(index, Purpose::kForecast)) return;
    expert.early = true;
    ++figures_.read_for_forecast;
  }
}

void ExpertStore::CheckExpert(int64_t index) {
  Expert& expert = experts_[static_cast<size_t>(index)];
  if (expert.checked) return;
  CheckExpertScales(model_, index / experts_per_block_, index % experts_per_block_,
                    expert.matrices);
  expert.checked = true;
}

int64_t ExpertStore::Acquire(std::span<int32_t> wanted, bool wait) {
  std::unique_lock lock(mutex_);
  for (;;) {
    ReadNeeded();
    auto end = std::stable_partition(wanted.begin(), wanted.end(), [&](int32_t number) {
      const auto index = static_cast<size_t>(IndexOf(open_block_, number));
      if (experts_[index].failure) std::rethrow_exception(experts_[index].failure);
      return experts_[index].state == State::kPresent;
    });
    if (wide_ && end - wanted.begin() > kAtOnce) {
      // Those whose memory the next reads wait for.
      std::stable_partition(wanted.begin(), end, [&](int32_t number) {
        return experts_[static_cast<size_t>(IndexOf(open_block_, number))].passing;
      });
      end = wanted.begin() + kAtOnce;
    }
    if (end != wanted.begin() || !wait) {
      lock.unlock();
      // Needed and present, so it stays as it is.
      for (auto at = wanted.begin(); at != end; ++at) CheckExpert(IndexOf(open_block_, *at));
      return end - wanted.begin();
    }
    const auto start = std::chrono::steady_clock::now();
    read_done_.wait(lock);
    figures_.wait_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
}

void ExpertStore::Release(std::span<const int32_t> experts) {
  const std::lock_guard lock(mutex_);
  for (const int32_t number : experts) {
    const int64_t index = IndexOf(open_block_, number);
    experts_[static_cast<size_t>(index)].needed = false;
    needed_.erase(std::find(needed_.begin(), needed_.end(), index));
  }
  ReadNeeded();
  ReadExpected();  // into what has become free
}

ExpertStoreFigures ExpertStore::figures() const {
  const DirectReadFigures reads = reader_->figures();
  const std::lock_guard lock(mutex_);
  ExpertStoreFigures figures = figures_;
  figures.read_bytes = reads.bytes;
  figures.read_seconds = reads.busy_seconds;
  for (size_t copy = 0; copy < reader_->copies(); ++copy)
    figures.copy_bytes.push_back(reader_->figures(copy).bytes);
  return figures;
}

}  // namespace toaster
