#pragma once

// Choosing the best of many by bounds, where most are out of the question.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backend/cpu/kernels/kernels.h"

namespace toaster {

/// What one thread has found of the candidates for the best `count` of an indexer's keys, and a bar
/// that rises with them: who stays below it is none of the best. For one thread at a time.
class CandidateList {
 public:
  /// Begins anew. Keys are left out from the first on if their scores are below what `least` rounds
  /// to: -infinity leaves out none, a good guess nearly all.
  void Clear(int64_t count, float least);

  /// Keys whose upper bound is below this need not be added.
  float bar() const { return bar_; }
  int64_t size() const { return size_; }

  /// Where to put up to `most` more candidates...
  kernels::IndexCandidates Room(int64_t most);
  /// ...and that so many came.
  void Add(int64_t candidates);

  /// The largest lower bound in place `count` of all candidates together: whose scores are below
  /// what it rounds to is none of the best. Nothing if fewer than `count` lower bounds are above
  /// Clear()'s `least`.
  static std::optional<float> Least(std::span<const CandidateList> lists, int64_t count);
  /// Below everything that rounds to what `least` rounds to.
  static float BarOf(float least);
  /// Appends the keys of candidates [begin, end) that reach `bar`, in their order.
  void Take(int64_t begin, int64_t end, float bar, std::vector<int32_t>& keys) const;

 private:
  int64_t count_ = 0, size_ = 0;
  std::vector<int32_t> keys_;
  std::vector<float> lower_, upper_;
  std::vector<float> best_;  // the largest lower bounds above least_
  float least_ = 0;
  float bar_ = 0;
};

}  // namespace toaster
