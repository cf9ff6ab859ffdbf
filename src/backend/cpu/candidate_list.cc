#include "backend/cpu/candidate_list.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tensor/number_formats.h"

namespace toaster {

namespace {

/// Leaves the largest `count` numbers; the last of them stands last.
void KeepLargest(std::vector<float>& numbers, int64_t count) {
  std::nth_element(numbers.begin(), numbers.begin() + count - 1, numbers.end(), std::greater<>());
  numbers.resize(static_cast<size_t>(count));
}

}  // namespace

float CandidateList::BarOf(float least) {
  constexpr float kStep = 0x1p-7f;  // one of BF16, at most
  const float rounded = RoundBf16(least);
  return rounded - std::abs(rounded) * kStep - std::numeric_limits<float>::min();
}

void CandidateList::Clear(int64_t count, float least) {
  count_ = count;
  size_ = 0;
  best_.clear();
  least_ = least;
  bar_ = BarOf(least);
}

kernels::IndexCandidates CandidateList::Room(int64_t most) {
  const auto needed = static_cast<size_t>(size_ + most);
  if (keys_.size() < needed) {
    const size_t size = std::max(needed, 2 * keys_.size());
    keys_.resize(size);
    lower_.resize(size);
    upper_.resize(size);
  }
  return {keys_.data() + size_, lower_.data() + size_, upper_.data() + size_};
}

void CandidateList::Add(int64_t candidates) {
  const int64_t begin = size_;
  size_ += candidates;
  for (int64_t i = begin; i < size_; ++i) {
    const float lower = lower_[static_cast<size_t>(i)];
    if (!(lower > least_)) continue;
    best_.push_back(lower);
    if (static_cast<int64_t>(best_.size()) < 2 * count_) continue;
    KeepLargest(best_, count_);
    least_ = best_.back();
    bar_ = BarOf(least_);
  }
}

std::optional<float> CandidateList::Least(std::span<const CandidateList> lists, int64_t count) {
  std::vector<float> best;
  for (const CandidateList& list : lists)
    best.insert(best.end(), list.best_.begin(), list.best_.end());
  if (static_cast<int64_t>(best.size()) < count) return std::nullopt;
  KeepLargest(best, count);
  return best.back();
}

void CandidateList::Take(int64_t begin, int64_t end, float bar, std::vector<int32_t>& keys) const {
  size_t taken = keys.size();
  keys.resize(taken + static_cast<size_t>(end - begin));
  for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
    keys[taken] = keys_[i];  // written over unless it counts: most do not
    taken += upper_[i] >= bar ? 1 : 0;
  }
  keys.resize(taken);
}

}  // namespace toaster
