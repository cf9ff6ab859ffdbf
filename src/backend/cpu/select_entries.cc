// The indexer, section 9.

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/index_query.h"
#include "backend/row_operations.h"
#include "tensor/summation.h"

namespace toaster {

namespace {

constexpr int64_t kRatio = 4;
constexpr int64_t kBlock = 32;
constexpr int64_t kPagesPerPiece = 64;  // pages of keys that one thread scans at a time
constexpr int64_t kScoresAtOnce = int64_t{1} << 24;  // bounds the score buffer

}  // namespace

void CpuBackend::PrepareIndexRow(float* q, float* weights, int64_t row, int64_t heads,
                                 int64_t width, const Rotation& rotation) {
  const int64_t padded = (heads + 15) / 16 * 16;
  const float scale = IndexWeightScale(heads, width);
  float* head_weights = index_weights_.data() + row * padded;
  std::fill_n(head_weights, padded, 0.0f);
  std::vector<uint8_t> key(static_cast<size_t>(KeyBytes(width)));
  uint8_t* codes = index_codes_.data() + row * width * padded;
  float* scales = index_scales_.data() + row * width / kBlock * padded;
  std::fill_n(codes, width * padded, static_cast<uint8_t>(kernels::kIndexBias));
  std::fill_n(scales, width / kBlock * padded, 0.0f);
  bool folds = official() && kernels_.reads_folded_queries;
  // Tables that do not read folded queries have no such buffers.
  int8_t* folded_codes = folds ? folded_index_codes_.data() + row * width * padded : nullptr;
  int32_t* folded_offsets = folds ? folded_index_offsets_.data() + row * padded : nullptr;
  float* folded_weights = folds ? folded_index_weights_.data() + row * padded : nullptr;
  if (folds) {
    std::fill_n(folded_codes, width * padded, int8_t{0});
    std::fill_n(folded_offsets, padded, 0);
    std::fill_n(folded_weights, padded, 0.0f);
  }
  for (int64_t head = 0; head < heads; ++head) {
    float* x = q + head * width;
    head_weights[head] = weights[head] = Round(weights[head] * scale);
    if (!official()) {
      PrepareIndexHead(x, width, rotation.cosine.Row(row), rotation.sine.Row(row),
                       rotation.cosine.width(), false);
      continue;
    }
    RotateTail(x, width, rotation.cosine.Row(row), rotation.sine.Row(row), rotation.cosine.width(),
               false, true);
    kernels_.hadamard(x, width);
    for (int64_t i = 0; i < width; ++i) x[i] = RoundBf16(x[i]);
    kernels_.encode_key(x, width, key.data());
    kernels::PackIndexHead(key.data(), width, head, padded, codes, scales);
    folds =
        folds && kernels::FoldIndexHead(key.data(), width, head, padded, weights[head],
                                        folded_codes, folded_offsets + head, folded_weights + head);
  }
  index_folds_[row] = folds;
}

void CpuBackend::ScoreKeys(const Tensor& q, const Tensor& weights, int64_t row,
                           const PagedRows& keys, int64_t begin, int64_t end, float* scores) const {
  if (begin >= end) return;
  const int64_t heads = q.extent(1), width = q.extent(2), padded = (heads + 15) / 16 * 16;
  if (official()) {
    kernels::IndexQuery query{index_codes_.data() + row * width * padded,
                              index_scales_.data() + row * width / kBlock * padded,
                              index_weights_.data() + row * padded,
                              padded,
                              width,
                              {}};
    if (index_folds_[row]) {
      query.folded = {folded_index_codes_.data() + row * width * padded,
                      folded_index_offsets_.data() + row * padded,
                      folded_index_weights_.data() + row * padded};
    }
    std::array<const uint8_t*, kPagesPerPiece> pages;
    for (int64_t page = 0; begin + page * keys.rows_per_page() < end; ++page)
      pages[static_cast<size_t>(page)] = keys.Row(begin + page * keys.rows_per_page());
    kernels_.index_scores(query, {pages.data(), keys.rows_per_page()}, end - begin, scores + begin);
    return;
  }
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
  const int64_t rows = q.extent(0), heads = q.extent(1), width = q.extent(2),
                padded = (heads + 15) / 16 * 16;
  index_codes_.Resize(rows * width * padded);
  const int64_t folded_rows = kernels_.reads_folded_queries ? rows : 0;
  folded_index_codes_.Resize(folded_rows * width * padded);
  folded_index_offsets_.Resize(folded_rows * padded);
  folded_index_weights_.Resize(folded_rows * padded);
  index_folds_.Resize(rows);
  index_scales_.Resize(rows * width / kBlock * padded);
  index_weights_.Resize(rows * padded);
  pool_.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      PrepareIndexRow(q.Row(row), weights.Row(row), row, heads, width, rotation);
    }
  });

  // Which sequence each row belongs to, and how many keys it may see.
  std::vector<const PagedRows*> row_keys(static_cast<size_t>(rows));
  std::vector<int64_t> visible(static_cast<size_t>(rows));
  int64_t most = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    most = std::max(most, keys[s]->size());
    for (int64_t i = 0; i < segments[s].rows; ++i) {
      const auto row = static_cast<size_t>(segments[s].first_row + i);
      row_keys[row] = keys[s];
      visible[row] = (segments[s].start + i + 1) / kRatio;
    }
  }
  if (scores != nullptr) {
    scores->Reshape({rows, most});
    scores->Fill(-std::numeric_limits<float>::infinity());
  }
  selection.all = false;
  selection.entries.resize(static_cast<size_t>(rows));
  const int64_t rows_at_once =
      std::clamp<int64_t>(kScoresAtOnce / std::max<int64_t>(most, 1), 1, rows);
  index_row_scores_.Resize(rows_at_once * most);
  const int64_t piece_keys = kPagesPerPiece * keys[0]->rows_per_page();
  const int64_t pieces = (most + piece_keys - 1) / piece_keys;
  for (int64_t first = 0; first < rows; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - first);
    pool_.ParallelFor(count * pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = first + i / pieces, key = i % pieces * piece_keys;
        const auto at = static_cast<size_t>(row);
        // Scores of rows that take every entry are needed by nobody but the caller that asks for
        // them.
        if (scores == nullptr && visible[at] <= topk) continue;
        ScoreKeys(q, weights, row, *row_keys[at], key, std::min(key + piece_keys, visible[at]),
                  index_row_scores_.data() + i / pieces * most);
      }
    });
    if (count < pool_.threads()) {
      for (int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<size_t>(first + i);
        SelectTopInParts(index_row_scores_.data() + i * most, visible[at], topk,
                         selection.entries[at]);
      }
    } else {
      pool_.ParallelFor(count, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const auto at = static_cast<size_t>(first + i);
          SelectTop(index_row_scores_.data() + i * most, visible[at], topk, selection.entries[at]);
        }
      });
    }
    for (int64_t i = 0; i < count && scores != nullptr; ++i) {
      std::copy_n(index_row_scores_.data() + i * most, visible[static_cast<size_t>(first + i)],
                  scores->Row(first + i));
    }
  }
}

}  // namespace toaster
