// Matrix products, sections 2, 7.6, 11.2 and 11.3.

#include <algorithm>
#include <bit>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace toaster {

namespace {

int64_t Padded(int64_t n) { return (n + 31) / 32 * 32; }

}  // namespace

void CpuBackend::PackedRows::Resize(int64_t rows, int64_t width, bool use_bf16) {
  stride = Padded(width);
  if (use_bf16) {
    bf16.Resize(rows * stride);
  } else {
    floats.Resize(rows * stride);
  }
}

void CpuBackend::PackRow(const float* x, int64_t width, bool quantise, PackedRows& rows,
                         int64_t row) const {
  if (!official()) {
    float* out = rows.floats.data() + row * rows.stride;
    std::copy_n(x, width, out);
    std::fill(out + width, out + rows.stride, 0.0f);
  } else if (quantise) {
    kernels_.quantize_e4m3(x, width, rows.bf16.data() + row * rows.stride);
  } else {
    kernels_.round_bf16(x, width, rows.bf16.data() + row * rows.stride);
  }
}

void CpuBackend::Pack(const Tensor& x, bool quantise, PackedRows& rows) {
  rows.Resize(x.rows(), x.width(), official());
  pool_.ParallelFor(x.rows(), 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) PackRow(x.Row(row), x.width(), quantise, rows, row);
  });
}

int64_t CpuBackend::LongerPiece(int64_t piece_rows, int64_t rows, int64_t tokens) const {
  constexpr int64_t kFewTokens = 8, kRows = 512;
  const int64_t pieces = 8 * pool_.threads();
  if (!official() || tokens <= kFewTokens || tokens > kPieceTokens) return piece_rows;
  while (piece_rows >= kernels::kScaleTileRows && piece_rows < kRows &&
         rows / (2 * piece_rows) >= pieces)
    piece_rows *= 2;
  return piece_rows;
}

CpuBackend::PieceShape CpuBackend::PiecesOf(int64_t rows, int64_t tokens) const {
  constexpr int64_t kRows = kernels::kScaleTileRows;
  const int64_t wanted = 4 * pool_.threads();
  const int64_t limit = rows / kRows < wanted ? kPieceTokens / 2 : kPieceTokens;
  const int64_t across = std::max<int64_t>(1, (tokens + limit - 1) / limit);
  PieceShape piece{kRows, std::max<int64_t>(1, (tokens + across - 1) / across)};
  while (piece.rows > 16 && rows / piece.rows * across < wanted) piece.rows /= 2;
  piece.rows = LongerPiece(piece.rows, rows * across, piece.tokens);
  return piece;
}

void CpuBackend::Multiply(const Product& product, Scratch& scratch) const {
  const Matrix& weight = *product.weight;
  const int64_t rows = product.end - product.begin, k = weight.columns;
  scratch.matmul.Resize(kernels::MatmulScratchBytes(k));
  kernels::WeightRows w{weight.data + product.begin * weight.row_bytes(), weight.row_bytes(), rows,
                        k, nullptr};
  if (!official()) {
    if (weight.format != NumberFormat::kFloat32) {
      scratch.expanded.Resize(rows * k);
      for (int64_t r = 0; r < rows; ++r)
        ExpandRow(weight, product.begin + r, scratch.expanded.data() + r * k);
      w.data = reinterpret_cast<const uint8_t*>(scratch.expanded.data());
      w.row_bytes = 4 * k;
    }
    kernels_.matmul_f32(w, product.x->floats.data() + product.x_offset, product.x_stride,
                        product.tokens, product.y, product.y_stride, scratch.matmul.data());
    return;
  }

  NumberFormat format = weight.format;
  if (format == NumberFormat::kE4m3 && k % 128 != 0) {
    // Kernels take whole tiles; only the input of wo_a may have another width.
    scratch.expanded.Resize(k);
    scratch.tile.Resize(rows * k);
    for (int64_t r = 0; r < rows; ++r) {
      ExpandRow(weight, product.begin + r, scratch.expanded.data());
      for (int64_t i = 0; i < k; ++i) scratch.tile[r * k + i] = FloatToBf16(scratch.expanded[i]);
    }
    w.data = reinterpret_cast<const uint8_t*>(scratch.tile.data());
    w.row_bytes = 2 * k;
    format = NumberFormat::kBf16;
  } else if (format == NumberFormat::kE4m3) {
    // A piece longer than a tile of scales begins with one.
    const int64_t columns = weight.scale_columns(),
                  first = product.begin / kernels::kScaleTileRows * columns;
    if (weight.scale_format == ScaleFormat::kE8m0) {
      w.scales = weight.scales + first;
    } else {  // powers of two as floats: the exponent field is the scale byte
      const int64_t count =
          (rows + kernels::kScaleTileRows - 1) / kernels::kScaleTileRows * columns;
      scratch.scales.Resize(count);
      for (int64_t i = 0; i < count; ++i) {
        const auto bits = LoadUnaligned<uint32_t>(weight.scales + 4 * (first + i));
        scratch.scales[i] = static_cast<uint8_t>(bits >> 23);
      }
      w.scales = scratch.scales.data();
    }
  } else if (format == NumberFormat::kE2m1) {
    w.scales = weight.scales + product.begin * weight.scale_columns();
  }
  const auto multiply = format == NumberFormat::kE2m1   ? kernels_.matmul_e2m1
                        : format == NumberFormat::kE4m3 ? kernels_.matmul_e4m3
                                                        : kernels_.matmul_bf16;
  multiply(w, product.x->bf16.data() + product.x_offset, product.x_stride, product.tokens,
           product.y, product.y_stride, scratch.matmul.data());
  if (!product.round) return;
  for (int64_t t = 0; t < product.tokens; ++t) {
    float* y = product.y + t * product.y_stride;
    for (int64_t r = 0; r < rows; ++r) y[r] = RoundBf16(y[r]);
  }
}

void CpuBackend::Linear(const Tensor& x, std::span<const Projection> projections) {
  struct Piece {
    const Projection* projection;
    int64_t begin, end;   // rows
    int64_t first, last;  // tokens
  };
  bool any_quantised = false, any_plain = false;
  std::vector<Piece> pieces;
  for (const Projection& projection : projections) {
    const Matrix& weight = *projection.weight;
    (weight.quantised() && official() ? any_quantised : any_plain) = true;
    projection.output->Reshape({x.rows(), weight.rows});
    const PieceShape piece = PiecesOf(weight.rows, x.rows());
    for (int64_t begin = 0; begin < weight.rows; begin += piece.rows) {
      const int64_t end = std::min(begin + piece.rows, weight.rows);
      for (int64_t first = 0; first < x.rows(); first += piece.tokens)
        pieces.push_back(
            {&projection, begin, end, first, std::min(first + piece.tokens, x.rows())});
    }
  }
  if (any_quantised) Pack(x, true, quantised_);
  if (any_plain) Pack(x, false, plain_);
  pool_.ParallelFor(
      static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last, int thread) {
        for (int64_t i = first; i < last; ++i) {
          const Piece& piece = pieces[static_cast<size_t>(i)];
          const Projection& projection = *piece.projection;
          const PackedRows& input =
              projection.weight->quantised() && official() ? quantised_ : plain_;
          Multiply({projection.weight, piece.begin, piece.end, &input, piece.first * input.stride,
                    input.stride, piece.last - piece.first,
                    projection.output->Row(piece.first) + piece.begin, projection.weight->rows,
                    projection.round_output},
                   scratch_[static_cast<size_t>(thread)]);
        }
      });
}

void CpuBackend::GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                               Tensor& output) {
  const int64_t k = weight.columns, rank = weight.rows / groups;
  // Each group's inputs get a row of their own, so that they start aligned and end padded.
  plain_.Resize(x.rows() * groups, k, official());
  pool_.ParallelFor(x.rows() * groups, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) PackRow(x.data() + i * k, k, false, plain_, i);
  });
  output.Reshape({x.rows(), weight.rows});
  struct Piece {
    int64_t begin, end;   // rows that lie in one group, and in one tile of scales or whole ones
    int64_t first, last;  // tokens
  };
  std::vector<Piece> pieces;
  const PieceShape piece = PiecesOf(weight.rows, x.rows());
  for (int64_t begin = 0; begin < weight.rows;) {
    const int64_t step = begin % kernels::kScaleTileRows == 0
                             ? piece.rows
                             : std::min(piece.rows, kernels::kScaleTileRows);
    const int64_t end = std::min(begin / step * step + step, begin / rank * rank + rank);
    for (int64_t first = 0; first < x.rows(); first += piece.tokens)
      pieces.push_back({begin, end, first, std::min(first + piece.tokens, x.rows())});
    begin = end;
  }
  pool_.ParallelFor(
      static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last, int thread) {
        for (int64_t i = first; i < last; ++i) {
          const auto [begin, end, from, to] = pieces[static_cast<size_t>(i)];
          Multiply({&weight, begin, end, &plain_, (from * groups + begin / rank) * plain_.stride,
                    groups * plain_.stride, to - from, output.Row(from) + begin, weight.rows, true},
                   scratch_[static_cast<size_t>(thread)]);
        }
      });
}

}  // namespace toaster
