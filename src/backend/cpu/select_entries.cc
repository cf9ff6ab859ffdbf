// The indexer, section 9.

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kRatio = 4;
constexpr int64_t kPagesPerPiece = 64;  // pages of keys that one thread scores at a time
constexpr int64_t kPagesPerScan = 128;  // and scans for candidates
constexpr int64_t kSampleEvery = 64;    // groups of keys, of which one is looked at first
constexpr int64_t kKeysPerPiece = 256;  // of candidates, scored at a time
constexpr int64_t kScoresAtOnce = int64_t{1} << 24;  // bounds the score buffer

/// The first rows of pages [begin, end) of rows, `begin` the first of a page.
template <size_t kMost>
kernels::KeyPages PagesOf(const PagedRows& rows, int64_t begin, int64_t end,
                          std::array<const uint8_t*, kMost>& pages) {
  size_t page = 0;
  for (int64_t row = begin; row < end; row += rows.rows_per_page()) pages[page++] = rows.Row(row);
  return {pages.data(), rows.rows_per_page()};
}

}  // namespace

void CpuBackend::PrepareIndexRow(float* q, float* weights, int64_t row, int64_t heads,
                                 int64_t width, const Rotation& rotation) {
  const float scale = IndexWeightScale(heads, width);
  for (int64_t head = 0; head < heads; ++head) weights[head] = Round(weights[head] * scale);
  const float* cosine = rotation.cosine.Row(row);
  const float* sine = rotation.sine.Row(row);
  if (!official()) {
    for (int64_t head = 0; head < heads; ++head)
      PrepareIndexHead(q + head * width, width, cosine, sine, rotation.cosine.width(), false);
    return;
  }
  const int64_t key_bytes = KeyBytes(width);
  std::vector<uint8_t> keys(static_cast<size_t>(heads * key_bytes));
  for (int64_t head = 0; head < heads; ++head) {
    float* x = q + head * width;
    RotateTail(x, width, cosine, sine, rotation.cosine.width(), false, true);
    kernels_.hadamard(x, width);
    for (int64_t i = 0; i < width; ++i) x[i] = RoundBf16(x[i]);
    kernels_.encode_key(x, width, keys.data() + head * key_bytes);
  }
  index_queries_.Set(row, keys.data(), weights);
}

void CpuBackend::ScoreKeys(const Tensor& q, const Tensor& weights, int64_t row,
                           const PagedRows& keys, int64_t begin, int64_t end, float* scores) const {
  if (begin >= end) return;
  if (official()) {
    std::array<const uint8_t*, kPagesPerPiece> pages;
    kernels_.index_scores(index_queries_.Row(row), PagesOf(keys, begin, end, pages), end - begin,
                          scores + begin);
    return;
  }
  const int64_t heads = q.extent(1), width = q.extent(2);
  std::vector<float> values(static_cast<size_t>(width));
  for (int64_t key = begin; key < end; ++key) {
    std::memcpy(values.data(), keys.Row(key), static_cast<size_t>(4 * width));
    float lanes[kLanes] = {};
    for (int64_t head = 0; head < heads; ++head) {
      const float dot = DotFloat(q.Row(row) + head * width, values.data(), width);
      lanes[head % kLanes] += std::max(dot, 0.0f) * weights.Row(row)[head];
    }
    scores[key] = FoldLanes(lanes);
  }
}

void CpuBackend::FindCandidates(int64_t row, const PagedRows& keys, int64_t begin, int64_t end,
                                CandidateList& found) const {
  std::array<const uint8_t*, kPagesPerScan> pages;
  AppendCandidates(row, PagesOf(keys, begin, end, pages), begin, end - begin, found);
}

void CpuBackend::SampleCandidates(int64_t row, const PagedRows& keys, int64_t begin, int64_t end,
                                  CandidateList& found) const {
  std::array<const uint8_t*, kPagesPerScan> pages;  // of kCandidateKeyStep keys each
  size_t page = 0;
  for (int64_t sample = begin; sample < end; ++sample)
    pages[page++] = keys.Row(sample * kSampleEvery * kernels::kCandidateKeyStep);
  AppendCandidates(row, {pages.data(), kernels::kCandidateKeyStep}, 0,
                   (end - begin) * kernels::kCandidateKeyStep, found);
}

void CpuBackend::AppendCandidates(int64_t row, const kernels::KeyPages& keys, int64_t first,
                                  int64_t count, CandidateList& found) const {
  found.Add(kernels_.index_candidates(index_queries_.Candidates(row), keys, count,
                                      static_cast<int32_t>(first), found.bar(),
                                      found.Room(count + kernels::kCandidateKeyStep)));
}

void CpuBackend::ScoreCandidates(int64_t row, const PagedRows& keys,
                                 std::span<const int32_t> candidates, float* scores) const {
  std::array<const uint8_t*, kKeysPerPiece> pages;  // of one key each
  for (size_t i = 0; i < candidates.size(); ++i) {
    pages[i] = keys.Row(candidates[i]);
    // They lie anywhere: better all are asked for at once.
    for (int64_t at = 0; at < keys.row_bytes(); at += 64) __builtin_prefetch(pages[i] + at);
  }
  kernels_.index_scores(index_queries_.Row(row), {pages.data(), 1},
                        static_cast<int64_t>(candidates.size()), scores);
}

void CpuBackend::SelectByBounds(int64_t row, const PagedRows& keys, int64_t n, int64_t count,
                                int thread, std::vector<int32_t>& chosen) {
  const bool alone = thread == kAllThreads;
  std::span<CandidateList> lists = candidates_;
  if (!alone) lists = lists.subspan(static_cast<size_t>(thread), 1);
  const auto clear = [&](int64_t best, float least) {
    for (CandidateList& list : lists) list.Clear(best, least);
  };
  const auto in_pieces = [&](int64_t total, int64_t grain, const auto& body) {
    const auto one_by_one = [&](int64_t begin, int64_t end, int at) {
      for (; begin < end; begin += grain) body(begin, std::min(begin + grain, end), at);
    };
    if (alone) {
      pool_.ParallelFor(total, grain, one_by_one);
    } else {
      one_by_one(0, total, 0);
    }
  };

  // A sample says what the least of the best will be, or somewhat less.
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const int64_t in_sample = count / kSampleEvery * 3 / 2 + 8;
  clear(in_sample, kNone);
  in_pieces(n / (kSampleEvery * kernels::kCandidateKeyStep), kPagesPerScan,
            [&](int64_t begin, int64_t end, int at) {
              SampleCandidates(row, keys, begin, end, lists[static_cast<size_t>(at)]);
            });
  const float guess = CandidateList::Least(lists, in_sample).value_or(kNone);

  struct Found {
    const CandidateList* list;
    int64_t begin, end;
  };
  const int64_t piece_keys = kPagesPerScan * keys.rows_per_page();
  std::vector<Found> found(static_cast<size_t>((n + piece_keys - 1) / piece_keys));
  const auto scan = [&](float least_of_best) {
    clear(count, least_of_best);
    in_pieces(n, piece_keys, [&](int64_t begin, int64_t end, int at) {
      CandidateList& list = lists[static_cast<size_t>(at)];
      const int64_t before = list.size();
      FindCandidates(row, keys, begin, end, list);
      found[static_cast<size_t>(begin / piece_keys)] = {&list, before, list.size()};
    });
    return CandidateList::Least(lists, count);
  };
  std::optional<float> least = scan(guess);
  if (!least.has_value()) least = scan(kNone);  // the guess was too high

  const float bar = CandidateList::BarOf(least.value_or(kNone));
  std::vector<int32_t> candidates;  // in rising order, so that equals are told apart as ever
  for (const Found& piece : found) piece.list->Take(piece.begin, piece.end, bar, candidates);
  std::vector<float> scores(candidates.size());
  const auto open = static_cast<int64_t>(candidates.size());
  in_pieces(open, kKeysPerPiece, [&](int64_t begin, int64_t end, int) {
    ScoreCandidates(row, keys, {candidates.data() + begin, candidates.data() + end},
                    scores.data() + begin);
  });
  SelectTop(scores.data(), open, count, chosen);
  for (int32_t& place : chosen) place = candidates[static_cast<size_t>(place)];
}

void CpuBackend::SelectTopInParts(const float* scores, int64_t n, int64_t count,
                                  std::vector<int32_t>& chosen) {
  const int64_t parts = pool_.threads(), length = (n + parts - 1) / parts;
  if (length <= 2 * count) {  // parts would leave most of what they are given
    SelectTop(scores, n, count, chosen);
    return;
  }
  std::vector<std::vector<int32_t>> best(static_cast<size_t>(parts));
  pool_.ParallelFor(parts, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t from = std::min(part * length, n), to = std::min(from + length, n);
      SelectTop(scores + from, to - from, count, best[static_cast<size_t>(part)]);
    }
  });
  // In rising order all together, so that equals are told apart as before.
  std::vector<int32_t> numbers;
  std::vector<float> best_scores;
  for (int64_t part = 0; part < parts; ++part) {
    for (const int32_t number : best[static_cast<size_t>(part)]) {
      numbers.push_back(number + static_cast<int32_t>(std::min(part * length, n)));
      best_scores.push_back(scores[numbers.back()]);
    }
  }
  SelectTop(best_scores.data(), static_cast<int64_t>(numbers.size()), count, chosen);
  for (int32_t& place : chosen) place = numbers[static_cast<size_t>(place)];
}

void CpuBackend::SelectEntries(Tensor& q, Tensor& weights, const Rotation& rotation,
                               std::span<const Segment> segments,
                               std::span<const PagedRows* const> keys, int64_t topk,
                               Selection& selection, Tensor* scores) {
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2);
  if (official()) index_queries_.Resize(rows, heads, width, kernels_);
  pool_.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      PrepareIndexRow(q.Row(row), weights.Row(row), row, heads, width, rotation);
  });

  // The rows and how many keys each may see: those chosen by bounds, and those by all scores. Rows
  // that take every entry need no scores, unless the caller asks for them.
  struct IndexRow {
    int64_t row, visible;
    const PagedRows* keys;
  };
  std::vector<IndexRow> by_bounds, by_scores;
  int64_t most = 0;
  selection.all = false;
  selection.entries.resize(static_cast<size_t>(rows));
  for (size_t s = 0; s < segments.size(); ++s) {
    for (int64_t i = 0; i < segments[s].rows; ++i) {
      const IndexRow row = {segments[s].first_row + i, (segments[s].start + i + 1) / kRatio,
                            keys[s]};
      if (scores == nullptr && row.visible >= kernels_.candidates_from * topk && official() &&
          index_queries_.HasCandidates(row.row) &&
          keys[s]->rows_per_page() % kernels::kCandidateKeyStep == 0) {
        by_bounds.push_back(row);
      } else {
        by_scores.push_back(row);
        most = std::max(most, keys[s]->size());
      }
    }
  }
  const auto chosen = [&](const IndexRow& row) -> std::vector<int32_t>& {
    return selection.entries[static_cast<size_t>(row.row)];
  };

  const auto select_by_bounds = [&](const IndexRow& row, int thread) {
    SelectByBounds(row.row, *row.keys, row.visible, topk, thread, chosen(row));
  };
  if (static_cast<int64_t>(by_bounds.size()) < pool_.threads()) {
    for (const IndexRow& row : by_bounds) select_by_bounds(row, kAllThreads);
  } else {
    pool_.ParallelFor(static_cast<int64_t>(by_bounds.size()), 1,
                      [&](int64_t begin, int64_t end, int thread) {
                        for (int64_t i = begin; i < end; ++i)
                          select_by_bounds(by_bounds[static_cast<size_t>(i)], thread);
                      });
  }

  if (scores != nullptr) {
    scores->Reshape({rows, most});
    scores->Fill(-std::numeric_limits<float>::infinity());
  }
  const auto scored = static_cast<int64_t>(by_scores.size());
  if (scored == 0) return;
  const int64_t rows_at_once =
      std::clamp<int64_t>(kScoresAtOnce / std::max<int64_t>(most, 1), 1, scored);
  index_row_scores_.Resize(rows_at_once * most);
  const int64_t piece_keys = kPagesPerPiece * keys[0]->rows_per_page();
  const int64_t pieces = (most + piece_keys - 1) / piece_keys;
  for (int64_t first = 0; first < scored; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, scored - first);
    const auto row_at = [&](int64_t i) { return by_scores[static_cast<size_t>(first + i)]; };
    const auto row_scores = [&](int64_t i) { return index_row_scores_.data() + i * most; };
    pool_.ParallelFor(count * pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const IndexRow row = row_at(i / pieces);
        if (scores == nullptr && row.visible <= topk) continue;
        const int64_t key = i % pieces * piece_keys;
        ScoreKeys(q, weights, row.row, *row.keys, key, std::min(key + piece_keys, row.visible),
                  row_scores(i / pieces));
      }
    });
    if (count < pool_.threads()) {
      for (int64_t i = 0; i < count; ++i)
        SelectTopInParts(row_scores(i), row_at(i).visible, topk, chosen(row_at(i)));
    } else {
      pool_.ParallelFor(count, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
          SelectTop(row_scores(i), row_at(i).visible, topk, chosen(row_at(i)));
      });
    }
    for (int64_t i = 0; i < count && scores != nullptr; ++i)
      std::copy_n(row_scores(i), row_at(i).visible, scores->Row(row_at(i).row));
  }
}

}  // namespace toaster
