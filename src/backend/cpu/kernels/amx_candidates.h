#pragma once

// Keys that may be among the best, as in avx512_candidates.h, but the dots by AMX. Included by
// avx512_amx.cc only.
//
// The tile instructions for 32 heads and 16 keys (a unit) keep in step with the terms of the unit
// before the last one and with unpacking keys for the next batch: evenly mixed, they hide each
// other. Their order is written down, as the compiler's own would put all loads first.

#include <cstring>

#include "backend/cpu/kernels/amx_tiles.h"
#include "backend/cpu/kernels/avx512_candidates.h"
#include "backend/cpu/kernels/avx512_folded_keys.h"
#include "backend/cpu/kernels/fetch_ahead.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels::amx {

namespace {

using avx512::AddApart;
using avx512::FoundCandidates;
using avx512::kGroupKeys;  // in a tile

constexpr int kBatchGroups = 4;  // that one load of the heads' tiles serves
constexpr int64_t kBatchKeys = kBatchGroups * kGroupKeys;
constexpr int kUnitSteps = 8;        // in each of them the terms of two keys, and one key unpacked
constexpr int kUnpackingPasses = 2;  // the first of a batch, in which the next one is unpacked
constexpr int64_t kKeyBytes = kCandidateWidth / 2 + kCandidateWidth / 32;
static_assert(kUnitSteps * kUnpackingPasses == kGroupKeys);

/// The keys, 16 at a time; the last ones again and again.
class KeyGroups {
 public:
  struct Group {
    const uint8_t* keys;
    const uint8_t* ahead;  ///< keys a page further on, or the same
  };

  KeyGroups(const KeyPages& keys, int64_t count)
      : page_(keys.pages), page_keys_(keys.page_keys), left_(count) {}

  Group Next() {
    const uint8_t* group = *page_ + in_page_ * kKeyBytes;
    if (left_ < kGroupKeys) {
      std::memcpy(tail_, group, static_cast<size_t>(left_ * kKeyBytes));
      group = tail_;
    }
    const uint8_t* ahead = left_ > page_keys_ ? page_[1] + in_page_ * kKeyBytes : group;
    if (left_ > kGroupKeys) {
      left_ -= kGroupKeys;
      in_page_ += kGroupKeys;
      if (in_page_ == page_keys_) ++page_, in_page_ = 0;
    }
    return {group, ahead};
  }

 private:
  const uint8_t* const* page_;
  int64_t page_keys_, in_page_ = 0;
  int64_t left_;  // from the next group on
  uint8_t tail_[kGroupKeys * kKeyBytes] = {};
};

/// The scales of 16 keys.
struct GroupScales {
  alignas(64) uint32_t of_blocks[kGroupKeys];  ///< four bytes for each key
  alignas(64) uint32_t folds[kGroupKeys];      ///< how much larger than the least, times 16
  __m512 shared;                               ///< the least
  __mmask16 unknown;                           ///< keys whose blocks have none to share

  void Take(const uint8_t* keys) {
    for (int i = 0; i < kGroupKeys; ++i)
      std::memcpy(of_blocks + i, keys + i * kKeyBytes + kCandidateWidth / 2, sizeof(uint32_t));
  }

  void Share() {
    const __m512i scales = _mm512_load_si512(of_blocks);
    const __m512i least = avx512::LeastOfFour(scales);
    const __m512i above = _mm512_sub_epi8(scales, least);
    const __m512i exponents = _mm512_and_si512(least, _mm512_set1_epi32(255));
    unknown = avx512::FarAbove(above) | avx512::ExtremeScales(exponents);
    shared = avx512::AsFloats(_mm512_slli_epi32(exponents, 23));
    const __m512i two_bits = _mm512_and_si512(above, _mm512_set1_epi8(kMostFold));
    _mm512_store_si512(folds, _mm512_slli_epi32(two_bits, 4));
  }
};

/// Puts the codes of one key in FoldedOrder.
[[gnu::always_inline]] inline void UnpackKey(const uint8_t* key, uint32_t folds, __m512i table,
                                             int8_t* codes) {
  __m512i pairs = _mm512_loadu_si512(key);
  asm volatile("" : "+v"(pairs));  // loaded once: it lies across two cache lines
  avx512::UnpackPairs(pairs, folds, table, codes, codes + 64);
}

/// The tile instructions of a unit: dots of a group of keys with 32 heads. Tile registers: dots 0
/// and 1; the keys' halves 2 and 3; the heads' halves 4 to 7. The instructions want their numbers
/// as text.
struct UnitTiles {
  const int8_t* next_keys;   ///< those of the next unit
  const int8_t* next_heads;  ///< likewise, null if they stay
  int64_t head_step;
  int32_t (*dots)[kGroupKeys][16];  ///< takes the dots of the unit before

  void LoadKeys(const int8_t* keys) const {
    _tile_loadd(2, keys, kCandidateWidth);
    _tile_loadd(3, keys + 64, kCandidateWidth);
  }
  void LoadFirstHeads(const int8_t* heads) const {
    _tile_loadd(4, heads, head_step);
    _tile_loadd(5, heads + 64, head_step);
  }
  void LoadSecondHeads(const int8_t* heads) const {
    _tile_loadd(6, heads + 16 * head_step, head_step);
    _tile_loadd(7, heads + 16 * head_step + 64, head_step);
  }

  /// The share of step `kStep` of eight.
  template <int kStep>
  [[gnu::always_inline]] void Do() const {
    if constexpr (kStep == 0) {
      _tile_stored(0, dots[0], 64);
      _tile_zero(0);
      _tile_dpbssd(0, 2, 4);
    } else if constexpr (kStep == 1) {
      _tile_stored(1, dots[1], 64);
      _tile_zero(1);
      _tile_dpbssd(1, 2, 5);
    } else if constexpr (kStep == 2) {
      _tile_loadd(2, next_keys, kCandidateWidth);
    } else if constexpr (kStep == 3) {
      _tile_dpbssd(0, 3, 6);
    } else if constexpr (kStep == 4) {
      _tile_dpbssd(1, 3, 7);
    } else if constexpr (kStep == 5) {
      _tile_loadd(3, next_keys + 64, kCandidateWidth);
    } else if constexpr (kStep == 6) {
      if (next_heads != nullptr) LoadFirstHeads(next_heads);
    } else {
      if (next_heads != nullptr) LoadSecondHeads(next_heads);
    }
  }
};

enum class Pass { kFirst, kMiddle, kLast };

/// The vector instructions of a unit: terms of a group of keys with 32 heads, and unpacking.
struct UnitVectors {
  const int32_t (*dots)[kGroupKeys][16];
  const int16_t* weights;               ///< [32]
  __m512i* sums;                        ///< [kGroupKeys]
  const uint8_t* packed;                ///< kUnitSteps keys
  const uint8_t* ahead;                 ///< the same of keys to fetch
  const uint32_t* folds;                ///< [kUnitSteps]
  int8_t (*unpacked)[kCandidateWidth];  ///< [kUnitSteps]
};

/// What a unit has in registers.
struct UnitState {
  __m512i weights, table;
  __m512i dots = _mm512_setzero_si512();  ///< of every head, the bits of all keys' dots
  __m512i one_apart[kUnitSteps], two_apart[kUnitSteps / 2], four_apart[kUnitSteps / 4];
};

/// The terms of key `key`, added to its sums; `dots` are those.
template <Pass kPass>
[[gnu::always_inline]] inline __m512i AddTerms(const UnitVectors& vectors, __m512i weights, int key,
                                               __m512i& dots) {
  // Dots below zero become zero, those of 2^16 and more the largest word.
  dots = _mm512_packus_epi32(_mm512_load_si512(vectors.dots[0][key]),
                             _mm512_load_si512(vectors.dots[1][key]));
  if constexpr (kPass == Pass::kFirst) return _mm512_madd_epi16(dots, weights);
  return _mm512_dpwssd_epi32(vectors.sums[key], dots, weights);
}

template <Pass kPass, bool kUnpack, int kStep>
[[gnu::always_inline]] inline void DoStep(const UnitTiles& tiles, const UnitVectors& vectors,
                                          UnitState& state) {
  asm volatile("" : "+v"(state.dots)::"memory");  // nothing leaves its step
  tiles.Do<kStep>();
  __m512i dots[2];
  const __m512i first = AddTerms<kPass>(vectors, state.weights, 2 * kStep, dots[0]);
  const __m512i second = AddTerms<kPass>(vectors, state.weights, 2 * kStep + 1, dots[1]);
  constexpr int kOrOr = 0xFE;  // a | b | c
  state.dots = _mm512_ternarylogic_epi32(state.dots, dots[0], dots[1], kOrOr);
  if constexpr (kPass == Pass::kLast) {
    __m512i* one = state.one_apart + kStep;
    __m512i* two = state.two_apart + kStep / 2;
    *one = AddApart<1>(first, second);
    asm volatile("" : "+v"(*one));
    if constexpr (kStep % 2 == 1) *two = AddApart<2>(one[-1], one[0]);
    if constexpr (kStep % 4 == 3) state.four_apart[kStep / 4] = AddApart<4>(two[-1], two[0]);
  } else {
    vectors.sums[2 * kStep] = first;
    vectors.sums[2 * kStep + 1] = second;
  }
  if constexpr (kUnpack) {
    UnpackKey(vectors.packed + kStep * kKeyBytes, vectors.folds[kStep], state.table,
              vectors.unpacked[kStep]);
    __builtin_prefetch(vectors.ahead + kStep * kKeyBytes, 0, kSecondLevel);
  }
}

/// A unit: a call of its own, so that the compiler has all registers for it. Gives the sums over
/// all lanes in the last pass; `most` gets every head's dots, or more.
template <Pass kPass, bool kUnpack>
[[gnu::noinline]] __m512i DoUnit(const UnitTiles& unit_tiles, const UnitVectors& unit_vectors,
                                 __m512i& dots) {
  const UnitTiles tiles = unit_tiles;  // in registers: a step may write to memory
  const UnitVectors vectors = unit_vectors;
  UnitState state;
  state.weights = _mm512_loadu_si512(vectors.weights);
  state.table = avx512::SignedCodes();
  DoStep<kPass, kUnpack, 0>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 1>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 2>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 3>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 4>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 5>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 6>(tiles, vectors, state);
  DoStep<kPass, kUnpack, 7>(tiles, vectors, state);
  dots = state.dots;
  return kPass == Pass::kLast ? AddApart<8>(state.four_apart[0], state.four_apart[1]) : state.dots;
}

/// Goes through the units of all batches: for each 32 heads, the groups of the batch. The dots of a
/// unit are stored by the next one and become terms in the one after that; meanwhile the next batch
/// is unpacked.
class CandidateScan {
 public:
  CandidateScan(const CandidateQuery& query, const KeyPages& keys, int64_t count)
      : query_(query),
        units_(static_cast<size_t>(query.heads / kCandidateHeadStep) * kBatchGroups),
        batches_((count + kBatchKeys - 1) / kBatchKeys),
        groups_(keys, count) {
    for (size_t half = 0; half < 2; ++half) {
      for (size_t unit = 0; unit < units_; ++unit) plans_[half][unit] = Plan(half, unit);
    }
  }

  void Run(FoundCandidates& list) {
    TakeNext();
    for (size_t group = 0; group < kBatchGroups; ++group) {
      TakeGroup(0, group);
      for (int i = 0; i < kGroupKeys; ++i)
        UnpackKey(group_.keys + i * kKeyBytes, scales_.folds[i], avx512::SignedCodes(),
                  codes_[0][group][i]);
    }
    WrittenForTiles(this);
    TileShapes().Load();
    const UnitTiles& tiles = plans_[0][0].tiles;
    tiles.LoadKeys(codes_[0][0][0]);
    tiles.LoadFirstHeads(query_.codes);
    tiles.LoadSecondHeads(query_.codes);
    _tile_zero(0);
    _tile_zero(1);
    int64_t turns = batches_ * static_cast<int64_t>(units_) + 2;
    size_t half = 0;
    for (int64_t begin = 0; turns > 0; begin += kBatchKeys, half = 1 - half) {
      for (size_t unit = 0; unit < units_ && turns > 0; ++unit, --turns)
        DoPlan(plans_[half][unit], begin, list);
    }
    _tile_release();
  }

 private:
  /// What a unit has to do: always the same in each second batch.
  struct UnitPlan {
    UnitTiles tiles;
    UnitVectors vectors;
    __m512i (*compute)(const UnitTiles&, const UnitVectors&, __m512i&);
    size_t unpack_half, unpack_group, unpack_part;  ///< the next batch's; none past the last group
    size_t half, group;                             ///< whose dots become terms
    int64_t begin;                                  ///< that group's first key, from the batch's
    const int16_t* slacks;
    bool first, last;  ///< of the group's terms
  };

  UnitPlan Plan(size_t half, size_t unit) {
    UnitPlan plan = {};
    const size_t other = 1 - half;
    const size_t next = (unit + 1) % units_, next_group = next % kBatchGroups;
    plan.tiles = {.next_keys = codes_[next == 0 ? other : half][next_group][0],
                  .next_heads = next_group == 0 ? query_.codes + 4 * FirstHead(next) : nullptr,
                  .head_step = 4 * query_.heads,
                  .dots = dots_[unit % 2]};
    plan.unpack_half = other;
    plan.unpack_group = unit / kUnpackingPasses;
    plan.unpack_part = unit % kUnpackingPasses;
    const bool unpacks = plan.unpack_group < kBatchGroups;
    const bool behind = unit < 2;  // terms of the batch before
    const size_t of_terms = (unit + units_ - 2) % units_;
    const int64_t head = FirstHead(of_terms);
    plan.half = behind ? other : half;
    plan.group = of_terms % kBatchGroups;
    plan.begin = static_cast<int64_t>(plan.group) * kGroupKeys - (behind ? kBatchKeys : 0);
    plan.vectors = {
        .dots = dots_[1 - unit % 2],
        .weights = query_.weights + head,
        .sums = sums_[plan.group],
        .packed = nullptr,
        .ahead = nullptr,
        .folds = scales_.folds + plan.unpack_part * kUnitSteps,
        .unpacked = codes_[other][unpacks ? plan.unpack_group : 0] + plan.unpack_part * kUnitSteps};
    plan.slacks = query_.slacks + head;
    plan.first = head == 0;
    plan.last = head + kCandidateHeadStep == query_.heads;
    if (plan.first) {
      plan.compute = unpacks ? DoUnit<Pass::kFirst, true> : DoUnit<Pass::kFirst, false>;
    } else if (plan.last) {
      plan.compute = unpacks ? DoUnit<Pass::kLast, true> : DoUnit<Pass::kLast, false>;
    } else {
      plan.compute = unpacks ? DoUnit<Pass::kMiddle, true> : DoUnit<Pass::kMiddle, false>;
    }
    return plan;
  }
  static int64_t FirstHead(size_t unit) {
    return static_cast<int64_t>(unit / kBatchGroups) * kCandidateHeadStep;
  }

  void TakeNext() {
    next_group_ = groups_.Next();
    scales_.Take(next_group_.keys);
  }

  // The next group is the one to unpack. Its scales were taken when the group before it was: four
  // bytes written just now would be slow to read as a vector.
  void TakeGroup(size_t half, size_t group) {
    group_ = next_group_;
    scales_.Share();
    shared_[half][group] = scales_.shared;
    unknown_[half][group] = scales_.unknown;
    TakeNext();
  }

  void DoPlan(UnitPlan& plan, int64_t batch_begin, FoundCandidates& list) {
    if (plan.unpack_group < kBatchGroups) {
      if (plan.unpack_part == 0) TakeGroup(plan.unpack_half, plan.unpack_group);
      const int64_t offset = static_cast<int64_t>(plan.unpack_part) * kUnitSteps * kKeyBytes;
      plan.vectors.packed = group_.keys + offset;
      plan.vectors.ahead = group_.ahead + offset;
    }
    __m512i dots;
    const __m512i sums = plan.compute(plan.tiles, plan.vectors, dots);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i slacks = _mm512_dpwssd_epi32(plan.first ? zero : slacks_[plan.group], dots,
                                               _mm512_loadu_si512(plan.slacks));
    const __m512i all_dots = _mm512_or_si512(plan.first ? zero : all_dots_[plan.group], dots);
    if (!plan.last) {
      slacks_[plan.group] = slacks;
      all_dots_[plan.group] = all_dots;
      return;
    }
    const int64_t begin = batch_begin + plan.begin;
    if (begin < 0) return;  // before the first batch
    list.Add(begin, sums, slacks, shared_[plan.half][plan.group],
             avx512::TooLarge(all_dots) ? 0xFFFF : unknown_[plan.half][plan.group]);
  }

  const CandidateQuery& query_;
  const size_t units_;  // of a batch
  const int64_t batches_;
  KeyGroups groups_;
  KeyGroups::Group group_ = {}, next_group_ = {};
  UnitPlan plans_[2][kMaxCandidateHeads / kCandidateHeadStep * kBatchGroups];

  // What lies in the first-level cache. Of two, one belongs to this batch or unit, and the other to
  // the one before or after.
  alignas(64) int8_t codes_[2][kBatchGroups][kGroupKeys][kCandidateWidth];
  alignas(64) int32_t dots_[2][2][kGroupKeys][16];  // with a unit's first 16 heads, with the others
  __m512i sums_[kBatchGroups][kGroupKeys];          // of the passes so far, 16 lanes for each key
  __m512i slacks_[kBatchGroups], all_dots_[kBatchGroups];  // likewise, of a group
  GroupScales scales_;                                     // `of_blocks` those of the next group
  __m512 shared_[2][kBatchGroups];
  __mmask16 unknown_[2][kBatchGroups];
};

int64_t FindCandidates(const CandidateQuery& query, const KeyPages& keys, int64_t count,
                       int32_t first, float bar, const IndexCandidates& found) {
  if (count == 0) return 0;
  FoundCandidates list(query.scale, count, first, bar, found);
  CandidateScan(query, keys, count).Run(list);
  return list.size();
}

}  // namespace

}  // namespace toaster::kernels::amx
