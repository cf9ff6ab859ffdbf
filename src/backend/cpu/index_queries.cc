#include "backend/cpu/index_queries.h"

#include <algorithm>

#include "backend/cpu/kernels/index_query.h"

namespace toaster {

void IndexQueries::Resize(int64_t rows, int64_t heads, int64_t width,
                          const kernels::KernelTable& kernels) {
  heads_ = heads;
  padded_heads_ = (heads + 15) / 16 * 16;
  width_ = width;
  has_candidates_ = kernels.index_candidates != nullptr && width == kernels::kCandidateWidth &&
                    padded_heads_ % kernels::kCandidateHeadStep == 0 &&
                    padded_heads_ >= 2 * kernels::kCandidateHeadStep &&
                    padded_heads_ <= kernels::kMaxCandidateHeads;
  has_folded_ = kernels.reads_folded_queries || has_candidates_;
  codes_.Resize(rows * width * padded_heads_);
  scales_.Resize(rows * width / 32 * padded_heads_);
  weights_.Resize(rows * padded_heads_);
  folds_.Resize(rows);
  const int64_t folded_rows = has_folded_ ? rows : 0;
  folded_codes_.Resize(folded_rows * width * padded_heads_);
  folded_offsets_.Resize(folded_rows * padded_heads_);
  folded_weights_.Resize(folded_rows * padded_heads_);
  const int64_t candidate_rows = has_candidates_ ? rows : 0;
  whole_weights_.Resize(candidate_rows * padded_heads_);
  slacks_.Resize(candidate_rows * padded_heads_);
  whole_scales_.Resize(candidate_rows);
}

void IndexQueries::Set(int64_t row, const uint8_t* keys, const float* weights) {
  const int64_t codes_at = row * width_ * padded_heads_, heads_at = row * padded_heads_;
  const int64_t scales_at = heads_at * (width_ / 32);
  const int64_t key_bytes = width_ / 2 + width_ / 32;
  std::fill_n(codes_.data() + codes_at, width_ * padded_heads_,
              static_cast<uint8_t>(kernels::kIndexBias));
  std::fill_n(scales_.data() + scales_at, width_ / 32 * padded_heads_, 0.0f);
  std::fill_n(weights_.data() + heads_at, padded_heads_, 0.0f);
  std::copy_n(weights, heads_, weights_.data() + heads_at);
  for (int64_t head = 0; head < heads_; ++head) {
    kernels::PackIndexHead(keys + head * key_bytes, width_, head, padded_heads_,
                           codes_.data() + codes_at, scales_.data() + scales_at);
  }
  folds_[row] = has_folded_;
  if (!has_folded_) return;
  std::fill_n(folded_codes_.data() + codes_at, width_ * padded_heads_, int8_t{0});
  std::fill_n(folded_offsets_.data() + heads_at, padded_heads_, 0);
  std::fill_n(folded_weights_.data() + heads_at, padded_heads_, 0.0f);
  for (int64_t head = 0; head < heads_ && folds_[row] != 0; ++head) {
    folds_[row] = kernels::FoldIndexHead(keys + head * key_bytes, width_, head, padded_heads_,
                                         weights[head], folded_codes_.data() + codes_at,
                                         folded_offsets_.data() + heads_at + head,
                                         folded_weights_.data() + heads_at + head);
  }
  if (!HasCandidates(row)) return;
  whole_scales_[row] =
      kernels::WholeIndexWeights(folded_weights_.data() + heads_at, padded_heads_,
                                 whole_weights_.data() + heads_at, slacks_.data() + heads_at);
}

kernels::IndexQuery IndexQueries::Row(int64_t row) const {
  const int64_t codes_at = row * width_ * padded_heads_, heads_at = row * padded_heads_;
  kernels::IndexQuery query = {codes_.data() + codes_at,
                               scales_.data() + heads_at * (width_ / 32),
                               weights_.data() + heads_at,
                               padded_heads_,
                               width_,
                               {}};
  if (folds_[row] != 0) {
    query.folded = {folded_codes_.data() + codes_at, folded_offsets_.data() + heads_at,
                    folded_weights_.data() + heads_at};
  }
  return query;
}

kernels::CandidateQuery IndexQueries::Candidates(int64_t row) const {
  const int64_t heads_at = row * padded_heads_;
  return {folded_codes_.data() + heads_at * width_,
          folded_offsets_.data() + heads_at,
          whole_weights_.data() + heads_at,
          slacks_.data() + heads_at,
          whole_scales_[row],
          padded_heads_};
}

}  // namespace toaster
