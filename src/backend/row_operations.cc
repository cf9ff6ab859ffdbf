#include "backend/row_operations.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tensor/elementary.h"
#include "tensor/rotate.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

inline float RoundIf(bool official, float x) { return official ? RoundBf16(x) : x; }

// Softmax over the slots of each channel, then the weighted sum.
void Pool(std::span<const PoolSlot> slots, int64_t width, float* pooled) {
  for (int64_t i = 0; i < width; ++i) {
    float maximum = slots[0].scores[i];
    for (const PoolSlot& slot : slots) maximum = std::max(maximum, slot.scores[i]);
    float total = 0, weighted = 0;
    for (const PoolSlot& slot : slots) {
      const float e = Exp(slot.scores[i] - maximum);
      total += e;
      weighted = std::fma(e, slot.values[i], weighted);
    }
    pooled[i] = weighted / total;
  }
}

// Sorts by falling scores, NaN last, then by rising numbers.
uint64_t RankKey(float score, int64_t number) {
  if (std::isnan(score)) return uint64_t{0xFFFFFFFF} << 32 | static_cast<uint64_t>(number);
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // of -0, too, those of 0
  const uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000;
  return uint64_t{~rising} << 32 | static_cast<uint64_t>(number);
}

}  // namespace

void NormaliseRow(const float* x, const Vector& weight, float eps, bool official, float* output) {
  const int64_t n = weight.size;
  const float mean = DotFloat(x, x, n) / static_cast<float>(n);
  const float factor = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) output[i] = RoundIf(official, x[i] * factor * weight[i]);
}

void RotateTail(float* x, int64_t width, const float* cosine, const float* sine, int64_t pairs,
                bool inverse, bool official) {
  float* tail = x + width - 2 * pairs;
  RotatePairs(tail, 2 * pairs, cosine, sine, inverse);
  for (int64_t i = 0; i < 2 * pairs; ++i) tail[i] = RoundIf(official, tail[i]);
}

void PrepareQueryHead(float* x, int64_t width, float eps, const float* cosine, const float* sine,
                      int64_t pairs, bool official, float* squares) {
  for (int64_t i = 0; i < width; ++i) squares[i] = RoundIf(official, x[i] * x[i]);
  const float mean = RoundIf(official, SumFloat(squares, width) / static_cast<float>(width));
  const float factor = RoundIf(official, 1.0f / std::sqrt(RoundIf(official, mean + eps)));
  for (int64_t i = 0; i < width; ++i) x[i] = RoundIf(official, x[i] * factor);
  RotateTail(x, width, cosine, sine, pairs, false, official);
}

void PrepareIndexHead(float* x, int64_t width, const float* cosine, const float* sine,
                      int64_t pairs, bool official) {
  RotateTail(x, width, cosine, sine, pairs, false, official);
  HadamardTransform(x, width);
  for (int64_t i = 0; i < width; ++i) x[i] = RoundIf(official, x[i]);
}

float IndexWeightScale(int64_t heads, int64_t width) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)) /
                            std::sqrt(static_cast<double>(heads)));
}

void WriteEntry(const float* values, EntryShape shape, bool official, uint8_t* entry) {
  if (official) {
    EncodeEntry(values, shape, entry);
  } else {
    std::memcpy(entry, values, static_cast<size_t>(4 * shape.width()));
  }
}

void ReadEntry(const uint8_t* entry, EntryShape shape, bool official, float* values) {
  if (official) {
    DecodeEntry(entry, shape, values);
  } else {
    std::memcpy(values, entry, static_cast<size_t>(4 * shape.width()));
  }
}

// The streams are walked a block of columns at a time, so that the inner loops run along them.
constexpr int64_t kStreamColumns = 32;

void ReadStreams(const float* streams, const float* pre, int64_t n, int64_t d, bool official,
                 float* output) {
  for (int64_t begin = 0; begin < d; begin += kStreamColumns) {
    const int64_t columns = std::min(kStreamColumns, d - begin);
    float sums[kStreamColumns] = {};
    for (int64_t j = 0; j < n; ++j) {
      const float* x = streams + j * d + begin;
      for (int64_t i = 0; i < columns; ++i) sums[i] = std::fma(pre[j], x[i], sums[i]);
    }
    for (int64_t i = 0; i < columns; ++i) output[begin + i] = RoundIf(official, sums[i]);
  }
}

void WriteStreams(const float* y, const float* post, const float* comb, const float* streams,
                  int64_t n, int64_t d, bool official, float* output) {
  constexpr int64_t kMaxStreams = 16;
  CHECK(n <= kMaxStreams, "{} streams", n);
  float old[kMaxStreams * kStreamColumns];
  for (int64_t begin = 0; begin < d; begin += kStreamColumns) {
    const int64_t columns = std::min(kStreamColumns, d - begin);
    for (int64_t j = 0; j < n; ++j)
      std::copy_n(streams + j * d + begin, columns, old + j * kStreamColumns);
    for (int64_t k = 0; k < n; ++k) {
      float sums[kStreamColumns] = {};
      for (int64_t j = 0; j < n; ++j) {
        const float factor = comb[j * n + k], *x = old + j * kStreamColumns;
        for (int64_t i = 0; i < columns; ++i) sums[i] = std::fma(factor, x[i], sums[i]);
      }
      float* to = output + k * d + begin;
      for (int64_t i = 0; i < columns; ++i)
        to[i] = RoundIf(official, std::fma(post[k], y[begin + i], sums[i]));
    }
  }
}

void MakeCompressedRow(std::span<const PoolSlot> slots, const CompressParameters& parameters,
                       int64_t position, bool official, uint8_t* row) {
  const int64_t width = parameters.norm.size;
  const auto pairs = static_cast<int64_t>(parameters.frequencies.size());
  std::vector<float> buffer(static_cast<size_t>(width + 2 * pairs));
  float *entry = buffer.data(), *cosine = entry + width, *sine = cosine + pairs;
  Pool(slots, width, entry);
  for (int64_t i = 0; i < width; ++i) entry[i] = RoundIf(official, entry[i]);
  NormaliseRow(entry, parameters.norm, parameters.norm_eps, official, entry);
  RotationAngles(position, parameters.frequencies, cosine, sine);
  if (!parameters.indexer_key) {
    RotateTail(entry, width, cosine, sine, pairs, false, official);
    WriteEntry(entry, {width - 2 * pairs, 2 * pairs}, official, row);
    return;
  }
  PrepareIndexHead(entry, width, cosine, sine, pairs, official);
  if (official) {
    EncodeKey(entry, width, row);
  } else {
    std::memcpy(row, entry, static_cast<size_t>(4 * width));
  }
}

namespace {

/// Leaves the smallest `count` of different keys, in the order they stand in; 0 < count <= size.
/// Gives the largest that stays. Counting by the upper 16 bits leaves few to compare.
uint64_t KeepSmallest(std::vector<uint64_t>& keys, int64_t count) {
  constexpr int kShift = 48;
  uint64_t least = keys[0] >> kShift, most = least;
  for (const uint64_t key : keys) {
    least = std::min(least, key >> kShift);
    most = std::max(most, key >> kShift);
  }
  std::vector<int32_t> counts(most - least + 1);
  for (const uint64_t key : keys) ++counts[(key >> kShift) - least];
  uint64_t last = 0;  // the count that is not taken whole
  int64_t wanted = count;
  while (wanted > counts[last]) wanted -= counts[last++];
  std::vector<uint64_t> of_last;
  for (const uint64_t key : keys) {
    if ((key >> kShift) - least == last) of_last.push_back(key);
  }
  std::nth_element(of_last.begin(), of_last.begin() + wanted - 1, of_last.end());
  const uint64_t limit = of_last[static_cast<size_t>(wanted - 1)];
  size_t kept = 0;
  for (const uint64_t key : keys) {
    keys[kept] = key;  // written over unless it stays: no guessing which
    kept += key <= limit ? 1 : 0;
  }
  keys.resize(kept);
  return limit;
}

}  // namespace

void SelectTop(const float* scores, int64_t n, int64_t count, std::vector<int32_t>& chosen) {
  if (count >= n) {
    chosen.resize(static_cast<size_t>(std::max<int64_t>(n, 0)));
    std::iota(chosen.begin(), chosen.end(), 0);
    return;
  }
  chosen.clear();
  if (count <= 0) return;
  // Candidates in rising order of their numbers, as keys that sort by what comes first. Once twice
  // as many as asked for were seen, only what beats the last of the best so far is one, and most
  // stretches hold none.
  std::vector<uint64_t> candidates;
  const auto most = static_cast<size_t>(2 * count);
  candidates.reserve(most);
  constexpr int64_t kStretch = 64;
  float bar = std::numeric_limits<float>::quiet_NaN();  // of no effect
  for (int64_t begin = 0; begin < n; begin += kStretch) {
    const int64_t end = std::min(begin + kStretch, n);
    if (!std::isnan(bar)) {
      int above = 0;  // counted, not asked for one by one, so that vectors do it
      for (int64_t i = begin; i < end; ++i) above += scores[i] > bar ? 1 : 0;
      if (above == 0) continue;
    }
    for (int64_t i = begin; i < end; ++i) {
      if (scores[i] <= bar) continue;
      candidates.push_back(RankKey(scores[i], i));
      if (candidates.size() < most) continue;
      bar = scores[static_cast<uint32_t>(KeepSmallest(candidates, count))];
    }
  }
  if (static_cast<int64_t>(candidates.size()) > count) KeepSmallest(candidates, count);
  for (const uint64_t key : candidates) chosen.push_back(static_cast<int32_t>(key & 0xFFFFFFFF));
}

void RouteRow(float* scores, const RouteParameters& parameters, const int32_t* table,
              int32_t* experts, float* weights) {
  const int64_t count = parameters.gate.rows, k = parameters.experts_per_token;
  for (int64_t e = 0; e < count; ++e) scores[e] = std::sqrt(Softplus(scores[e]));
  if (table != nullptr) {
    std::copy_n(table, k, experts);
  } else {
    std::vector<float> biased(static_cast<size_t>(count));
    for (int64_t e = 0; e < count; ++e)
      biased[static_cast<size_t>(e)] = scores[e] + (*parameters.bias)[e];
    for (int64_t i = 0; i < k; ++i) {  // k is small: pick the largest, the first of equals, k times
      const auto best = std::max_element(biased.begin(), biased.end());
      experts[i] = static_cast<int32_t>(best - biased.begin());
      *best = -INFINITY;
    }
  }
  float total = 0;
  for (int64_t i = 0; i < k; ++i) total += scores[experts[i]];
  for (int64_t i = 0; i < k; ++i)
    weights[i] = scores[experts[i]] / (total + 1e-20f) * parameters.scale;
}

}  // namespace toaster
