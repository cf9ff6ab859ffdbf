#pragma once

// Indexer queries in the forms that the kernels want.

#include <cstdint>

#include "backend/cpu/kernels/kernels.h"
#include "tensor/tensor.h"

namespace toaster {

/// The queries of some rows. Different rows may be set by different threads.
class IndexQueries {
 public:
  /// Room for the queries of `rows` rows with `heads` heads of `width` numbers, in the forms that
  /// `kernels` makes use of.
  void Resize(int64_t rows, int64_t heads, int64_t width, const kernels::KernelTable& kernels);
  /// Sets a row: for each head a key (KernelTable::encode_key) [heads, width/2 + width/32], and a
  /// weight (a BF16 value) [heads].
  void Set(int64_t row, const uint8_t* keys, const float* weights);

  kernels::IndexQuery Row(int64_t row) const;
  /// Whether the row has a form for KernelTable::index_candidates.
  bool HasCandidates(int64_t row) const { return has_candidates_ && folds_[row] != 0; }
  kernels::CandidateQuery Candidates(int64_t row) const;

 private:
  int64_t heads_ = 0, padded_heads_ = 0, width_ = 0;
  bool has_folded_ = false, has_candidates_ = false;
  AlignedArray<uint8_t> codes_;           // [rows, width/4, padded_heads, 4]
  AlignedArray<float> scales_, weights_;  // [rows, width/32, padded_heads], [rows, padded_heads]
  AlignedArray<uint8_t> folds_;           // [rows], whether the next three hold the row
  AlignedArray<int8_t> folded_codes_;     // as codes_
  AlignedArray<int32_t> folded_offsets_;  // [rows, padded_heads]
  AlignedArray<float> folded_weights_;    // [rows, padded_heads]
  AlignedArray<int16_t> whole_weights_, slacks_;  // [rows, padded_heads]
  AlignedArray<float> whole_scales_;              // [rows]
};

}  // namespace toaster
