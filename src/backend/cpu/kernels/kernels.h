#pragma once

// The table of inner loops that one instruction set provides.
//
// A kernel sees raw pointers and sizes. It never allocates, throws, locks or logs, and it calls
// nothing that another file could replace at link time (tests/kernel_symbols_test.cc). All tables
// give the same bits: those of the scalar definitions in tensor/summation.h, tensor/elementary.h
// and tensor/number_formats.h. The calling thread flushes denormals.
//
// Common rules. Pointers into weights have any alignment; activations and scratch are 64-byte
// aligned, their strides multiples of 32 elements, and activation rows are readable and zero up to
// the next multiple of 32 elements. Weight rows are read within their own bytes only.

#include <cstddef>
#include <cstdint>

namespace toaster::kernels {

/// Rows of a weight matrix [rows, inner] as stored in a checkpoint.
struct WeightRows {
  const uint8_t* data = nullptr;  ///< first row
  int64_t row_bytes = 0;          ///< distance between rows
  int64_t rows = 0;
  int64_t inner = 0;  ///< inputs per row; a multiple of 128 for E4M3 and E2M1
  /// UE8M0. E2M1: [rows, inner/32]. E4M3: [tiles of kScaleTileRows rows, inner/128]; the first row
  /// begins a tile, or all rows are in one.
  const uint8_t* scales = nullptr;
};

/// Rows of a weight matrix that share E4M3 scales.
static constexpr int64_t kScaleTileRows = 128;

/// Most rows of a tile of expanded weights if a row takes `row_bytes`, a multiple of 4: as many as
/// the second-level cache holds beside the inputs.
static constexpr int64_t MatmulTileLimit(int64_t row_bytes) {
  constexpr int64_t kTileBytes = 384 << 10;
  const int64_t rows = kTileBytes / row_bytes / 4 * 4;
  return rows < 4 ? 4 : rows > 128 ? 128 : rows;
}

/// Rows of one tile when `rows` rows are divided evenly, a multiple of 4.
static constexpr int64_t MatmulTileRows(int64_t rows, int64_t row_bytes) {
  const int64_t limit = MatmulTileLimit(row_bytes);
  const int64_t tiles = (rows + limit - 1) / limit;
  return tiles == 0 ? limit : ((rows + tiles - 1) / tiles + 3) / 4 * 4;
}

// Sizes of a product by fused multiply-adds of floats (blocked_float_product.h): rows of a panel of
// sums, inputs of a block, rows of an expanded tile. Tile and inputs of a group of tokens fit the
// first-level cache, the panel's sums and its inputs of a block the second-level one.
static constexpr int64_t kFloatPanelRows = kScaleTileRows;
static constexpr int64_t kFloatBlock = 512;
static constexpr int64_t kFloatTileRows = 8;

/// Most tokens of a group of sums in any table.
static constexpr int64_t kFloatGroupTokens = 6;

/// Most tokens of a panel, `padded` inputs each: more where one block is all there is and no sums
/// wait, fewer where all inputs would take more than 2 MiB.
static constexpr int64_t FloatPanelTokens(int64_t padded) {
  constexpr int64_t kInputs = int64_t{512} << 10;
  const int64_t most = padded > kFloatBlock ? 60 : 120;
  const int64_t tokens = kInputs / padded / kFloatGroupTokens * kFloatGroupTokens;
  return tokens > most ? most : tokens < kFloatGroupTokens ? kFloatGroupTokens : tokens;
}

/// Floats of the sums that wait: of a panel; of one group where one block is all there is.
static constexpr int64_t FloatPanelSums(int64_t padded) {
  return padded > kFloatBlock ? kFloatPanelRows * FloatPanelTokens(padded) * 16
                              : kFloatTileRows * kFloatGroupTokens * 16;
}

/// Bytes of `scratch` that a matrix product with `inner` inputs may use: a tile of BF16 numbers; or
/// inputs of few tokens as floats; or what blocked_float_product.h needs.
static constexpr int64_t MatmulScratchBytes(int64_t inner) {
  const int64_t padded = (inner + 31) / 32 * 32;
  const int64_t words = MatmulTileLimit(padded * 2) * padded * 2;
  const int64_t few_tokens = 4 * padded * 4;
  const int64_t floats = 4 * (FloatPanelSums(padded) + kFloatTileRows * kFloatBlock +
                              FloatPanelTokens(padded) * padded);
  const int64_t more = words > floats ? words : floats;
  return more > few_tokens ? more : few_tokens;
}

/// Widest indexer head.
static constexpr int64_t kMaxIndexWidth = 512;

/// What the query's codes, and the keys' folded ones, have had added to be unsigned.
static constexpr int kIndexBias = 12, kFoldedIndexBias = 96;

/// A query's form for keys whose blocks nearly share one scale, as nearly all do.
struct FoldedIndexQuery {
  const int8_t* codes = nullptr;  ///< doubled E2M1 values times 1, 2, 4 or 8, whatever their
                                  ///< block's scale is of the head's smallest, [width/4,
                                  ///< padded_heads, 4] with numbers in FoldedOrder (index_query.h)
  const int32_t* offsets = nullptr;  ///< [padded_heads], -kFoldedIndexBias times the sum of a head
  const float* weights = nullptr;    ///< [padded_heads], head weights times the smallest scales
};

/// One indexer query, prepared for IndexScores; head h stands at column h, columns up to
/// `padded_heads` are zero.
struct IndexQuery {
  const uint8_t* codes = nullptr;  ///< doubled E2M1 values, biased, [width/4, padded_heads, 4]
  const float* scales = nullptr;   ///< [width/32, padded_heads], the block's scale times 1/4 (both
                                   ///< operands are doubled)
  const float* weights = nullptr;  ///< [padded_heads], the head weights (BF16 values)
  int64_t padded_heads = 0;        ///< a multiple of 16
  int64_t width = 0;               ///< numbers per head, a multiple of 32, at most kMaxIndexWidth
  FoldedIndexQuery folded;         ///< null where scales are too far apart or too extreme for it
};

/// Sizes that index_candidates is made for: numbers of a head, heads (a multiple of the step, from
/// two of them to the most), and keys of a page (a multiple).
static constexpr int64_t kCandidateWidth = 128, kCandidateHeadStep = 32, kMaxCandidateHeads = 128,
                         kCandidateKeyStep = 16;

/// A query's form for index_candidates: its codes folded, its weights whole numbers.
struct CandidateQuery {
  const int8_t* codes = nullptr;     ///< those of FoldedIndexQuery
  const int32_t* offsets = nullptr;  ///< likewise
  const int16_t* weights = nullptr;  ///< [heads] in CandidateOrder (index_query.h)
  /// [heads], likewise: sixteenths of what a head's term may be off, for each unit of its dot.
  const int16_t* slacks = nullptr;
  float scale = 0;  ///< times a whole weight is the head's
  int64_t heads = 0;
};

/// Keys whose scores may count, and what is known of those: score = RoundBf16(s) with lower <= s <=
/// upper.
struct IndexCandidates {
  int32_t* keys = nullptr;
  float* lower = nullptr;
  float* upper = nullptr;
};

/// Compact indexer keys (width/2 bytes of E2M1 codes, low nibble first, then width/32 scale bytes)
/// in pages of `page_keys` keys without gaps; the last page may hold fewer.
struct KeyPages {
  const uint8_t* const* pages = nullptr;
  int64_t page_keys = 0;
};

struct KernelTable {
  const char* name;

  // y[t * y_stride + r] = dot(w_r, x_t) for all r < w.rows, t < tokens; the weight is value times
  // scale, rounded to BF16 (exact unless it leaves BF16's normal range), and the order is that of
  // DotBf16. x: BF16 [tokens, x_stride].
  void (*matmul_bf16)(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                      float* y, int64_t y_stride, std::byte* scratch);
  void (*matmul_e4m3)(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                      float* y, int64_t y_stride, std::byte* scratch);
  void (*matmul_e2m1)(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens,
                      float* y, int64_t y_stride, std::byte* scratch);
  // The same with float weights and float x, in the order of DotFloat.
  void (*matmul_f32)(const WeightRows& w, const float* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride, std::byte* scratch);

  // out[i] = BF16 bits of x[i], i < n; then zeros up to the next multiple of 32.
  void (*round_bf16)(const float* x, int64_t n, uint16_t* out);
  // The same after E4M3 rounding in blocks of 128: out[i] = value * scale (BF16 bits). n is a
  // multiple of 128.
  void (*quantize_e4m3)(const float* x, int64_t n, uint16_t* out);

  // Orthonormal Walsh-Hadamard transform of x [n] in natural order, in place, n a power of two from
  // 32 on: butterflies a + b, a - b with strides 1, 2, 4, ..., then the factor n^(-1/2).
  void (*hadamard)(float* x, int64_t n);
  // One compact indexer key or query head: E2M1 codes in blocks of 32, the low nibble first, then
  // the scale bytes; width/2 + width/32 bytes.
  void (*encode_key)(const float* x, int64_t width, uint8_t* key);

  // One compact cache entry (docs/formats/cache_entry.md: `plain` E4M3 codes, `rotary` BF16
  // numbers, plain/64 scales) to plain + rotary BF16 numbers. plain is a multiple of 64, rotary is
  // even.
  void (*expand_entry)(const uint8_t* entry, int64_t plain, int64_t rotary, uint16_t* out);

  // Multiplies the scores by `factor` and gives the largest product; NaN is never the largest, and
  // -infinity is the result if there is nothing else. n is a multiple of 16.
  float (*scale_scores)(float* scores, int64_t n, float factor);

  // Softmax numerators of one score row: e = Exp(score[i] - maximum); p[i] = BF16 bits of e;
  // lanes[i mod 16] += e in rising order of i. n is a multiple of 16; a score of -infinity gives 0.
  void (*softmax_numerators)(const float* scores, int64_t n, float maximum, uint16_t* p,
                             float* lanes);

  // o[h * o_stride + c] += sum over s of p[h * p_head + s * p_slot] * v[s * v_stride + c], c <
  // width: one accumulator per output; for each pair of slots (2j, 2j+1) in rising order the odd
  // slot is added before the even one, by fused multiply-adds. p, v: BF16, at any alignment. p_head
  // or p_slot is 1, slots is even, width a multiple of 32 (padding of v included).
  void (*accumulate_bf16)(const uint16_t* p, int64_t p_head, int64_t p_slot, const uint16_t* v,
                          int64_t v_stride, int64_t heads, int64_t slots, int64_t width, float* o,
                          int64_t o_stride);
  // The same of floats, slots in rising order; any number of slots and columns.
  void (*accumulate_f32)(const float* p, int64_t p_head, int64_t p_slot, const float* v,
                         int64_t v_stride, int64_t heads, int64_t slots, int64_t width, float* o,
                         int64_t o_stride);

  // out[i] = weight * ((g * Sigmoid(g)) * u) with u = clamp(up[i], -limit, limit), g = min(gate[i],
  // limit); limit <= 0: no clamp.
  void (*swiglu)(const float* gate, const float* up, int64_t n, float limit, float weight,
                 float* out);

  // The backward of swiglu: gradients of gate and up (0 where they are clamped) from that of out;
  // the result is the gradient of `weight`, element i in lane i mod 16, then FoldLanes.
  float (*swiglu_backward)(const float* gate, const float* up, int64_t n, float limit, float weight,
                           const float* grad_out, float* grad_gate, float* grad_up);

  // Indexer scores of the first `count` keys: dot = sum over blocks of 32, in order, of (exact
  // integer dot) * (query scale * key scale), in float; term[h] = RoundBf16(max(RoundBf16(dot), 0)
  // * weight[h]); head h adds to lane h mod 16 in rising order; out[i] =
  // RoundBf16(FoldLanes(lanes)).
  void (*index_scores)(const IndexQuery& query, const KeyPages& keys, int64_t count, float* out);
  bool reads_folded_queries = false;  ///< whether it makes use of IndexQuery::folded

  // Those of the first `count` keys, page_keys a multiple of kCandidateKeyStep, whose upper bound
  // is at least `bar`, in rising order, the first key's number being `first`. Bounds are infinite
  // where nothing is known. The result is how many there are; `found` has room for count +
  // kCandidateKeyStep. Null in tables that have no fast way.
  int64_t (*index_candidates)(const CandidateQuery& query, const KeyPages& keys, int64_t count,
                              int32_t first, float bar, const IndexCandidates& found) = nullptr;
  int64_t candidates_from = 0;  ///< so many keys for each one to choose make that the faster way

  // For measuring the limits of the machine (limits.h): many rounds of the multiply-adds this table
  // uses, in registers, on the number *sink, which takes up the result so that nothing is left out.
  // The result is the number of multiplications and additions done.
  int64_t (*spin_bf16)(int64_t rounds, float* sink);
  int64_t (*spin_int8)(int64_t rounds, float* sink);
  int64_t (*spin_float)(int64_t rounds, float* sink);
};

/// Plain C++; every machine.
const KernelTable& Portable();
/// AVX2 and FMA.
const KernelTable& Avx2();
/// AVX-512 F, BW, VL, DQ, VBMI, BF16 and VNNI.
const KernelTable& Avx512Bf16();
/// The same instructions, but fused multiply-adds of floats for products of many tokens.
const KernelTable& Avx512Fma();
/// The same with AMX for the integer products of the indexer.
const KernelTable& Avx512Amx();

/// Names of all tables.
static constexpr const char* kTableNames[] = {"portable", "avx2", "avx512_bf16", "avx512_fma",
                                              "avx512_amx"};

/// Whether this processor can run the table called `name`, one of kTableNames.
bool CanRun(const char* name);
/// The table called `name`, the fastest of the last three for "avx512", or the fastest this
/// processor can run if `name` is empty. Null if unknown or not runnable.
const KernelTable* Choose(const char* name);

}  // namespace toaster::kernels
