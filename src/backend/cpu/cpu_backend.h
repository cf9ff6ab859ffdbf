#pragma once

#include "backend/backend.h"
#include "backend/cpu/candidate_list.h"
#include "backend/cpu/index_queries.h"
#include "backend/cpu/kernels/kernels.h"
#include "base/thread_pool.h"

namespace toaster {

/// The fast backend: the operations of `reference`, file by file, spread over threads and built on
/// the kernel table of one instruction set. Pieces of work never share a sum, so neither the split
/// nor the table changes a bit.
class CpuBackend : public Backend {
 public:
  CpuBackend(Numerics numerics, int threads, const kernels::KernelTable& kernels);
  std::string name() const override;
  MachineLimits MeasureLimits() override;
  double CurrentBf16Rate() override;

  void Embed(std::span<const int32_t> tokens, const Matrix& embed, int64_t copies,
             Tensor& output) override;
  void HyperPre(const Tensor& streams, const HyperParameters& parameters, Tensor& input,
                Tensor& post, Tensor& comb) override;
  void HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb, const Tensor& streams,
                 Tensor& output) override;
  void HyperHead(const Tensor& streams, const HyperParameters& parameters, Tensor& output) override;
  void RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) override;
  void Linear(const Tensor& x, std::span<const Projection> projections) override;
  void GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                     Tensor& output) override;
  void PrepareQueries(Tensor& q, float eps, const Rotation& rotation) override;
  void StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                    uint8_t* entries) override;
  void Compress(const Tensor& values, const Tensor& scores, const CompressParameters& parameters,
                std::span<const Segment> segments,
                std::span<const CompressTarget> targets) override;
  void SelectEntries(Tensor& q, Tensor& weights, const Rotation& rotation,
                     std::span<const Segment> segments, std::span<const PagedRows* const> keys,
                     int64_t topk, Selection& selection, Tensor* scores) override;
  void Attend(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
              std::span<const Segment> segments, std::span<const AttendSource> sources,
              Tensor& output) override;
  void Route(const Tensor& x, const RouteParameters& parameters, Routing& routing) override;
  void Experts(const Tensor& x, const Routing& routing, ExpertSource& experts,
               const ExpertMatrices& shared, float swiglu_limit, Tensor& output) override;
  void AddToStreams(const Tensor& e, const Tensor& h, Tensor& streams) override;

 private:
  /// Rows of activations as the kernels want them: BF16 in `official`, floats in `fp32`, each row
  /// padded with zeros to a multiple of 32 numbers.
  struct PackedRows {
    AlignedArray<uint16_t> bf16;
    AlignedArray<float> floats;
    int64_t stride = 0;
    void Resize(int64_t rows, int64_t width, bool use_bf16);
  };
  /// Memory of one thread.
  struct Scratch {
    AlignedArray<std::byte> matmul;
    AlignedArray<float> expanded, scores, floats;
    AlignedArray<uint16_t> bf16, tile;
    AlignedArray<uint8_t> scales;
  };
  /// A piece of a matrix product: rows [begin, end) of `weight`, which lie in one row of scale
  /// tiles, for `tokens` inputs.
  struct Product {
    const Matrix* weight = nullptr;
    int64_t begin = 0, end = 0;
    const PackedRows* x = nullptr;
    int64_t x_offset = 0;  ///< of the first token's inputs in x
    int64_t x_stride = 0;  ///< from token to token
    int64_t tokens = 0;
    float* y = nullptr;  ///< y[t * y_stride + (r - begin)]
    int64_t y_stride = 0;
    bool round = true;
  };

  /// Packs row [width] of activations; `quantise` rounds to E4M3 in blocks of 128 first (official
  /// only).
  void PackRow(const float* x, int64_t width, bool quantise, PackedRows& rows, int64_t row) const;
  void Pack(const Tensor& x, bool quantise, PackedRows& rows);
  void Multiply(const Product& product, Scratch& scratch) const;
  /// How a product is cut into pieces, so that every thread has a few: into tokens first, since
  /// each piece prepares its tokens' inputs anew. `rows` divides a tile of scales or is whole
  /// ones.
  struct PieceShape {
    int64_t rows, tokens;
  };
  static constexpr int64_t kPieceTokens = 480;
  /// Rows of a piece of `tokens` tokens: `piece_rows`, or more where the product expands tiles of
  /// weights (inputs are then prepared once for more rows) and `rows`, all there are, still leave
  /// every thread several pieces.
  int64_t LongerPiece(int64_t piece_rows, int64_t rows, int64_t tokens) const;
  PieceShape PiecesOf(int64_t rows, int64_t tokens) const;
  /// The products and root mean squares of 5.1 steps 1 and 2 for every token: [rows, mixes].
  void HyperMix(const Tensor& streams, const HyperParameters& parameters, Tensor& mixes);
  /// Row `row` of the mixes times the factor of RMSNorm over streams [fn.columns].
  void ScaleMixes(const float* streams, const HyperParameters& parameters, int64_t row);
  void AttendHeads(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
                   const Segment& segment, const AttendSource& source, int64_t index,
                   int64_t head_begin, int64_t head_end, Scratch& scratch, Tensor& output) const;

  /// Prepares one row's indexer queries in place, and in index_queries_.
  void PrepareIndexRow(float* q, float* weights, int64_t row, int64_t heads, int64_t width,
                       const Rotation& rotation);
  /// SelectTop by all threads.
  void SelectTopInParts(const float* scores, int64_t n, int64_t count,
                        std::vector<int32_t>& chosen);
  /// scores[i] for keys i in [begin, end), at most kPagesPerPiece pages from the first of one on.
  void ScoreKeys(const Tensor& q, const Tensor& weights, int64_t row, const PagedRows& keys,
                 int64_t begin, int64_t end, float* scores) const;

  /// Adds those keys in [begin, end), from the first of a page on, that may be among the best.
  void FindCandidates(int64_t row, const PagedRows& keys, int64_t begin, int64_t end,
                      CandidateList& found) const;
  /// The same of samples [begin, end), groups of keys spread evenly; their numbers mean nothing.
  void SampleCandidates(int64_t row, const PagedRows& keys, int64_t begin, int64_t end,
                        CandidateList& found) const;
  void AppendCandidates(int64_t row, const kernels::KeyPages& keys, int64_t first, int64_t count,
                        CandidateList& found) const;
  /// scores[i] for the key candidates[i].
  void ScoreCandidates(int64_t row, const PagedRows& keys, std::span<const int32_t> candidates,
                       float* scores) const;
  static constexpr int kAllThreads = -1;
  /// The best `count` of the first `n` keys, by exact scores of those only whose bounds leave it
  /// open; by one thread of the pool, in whose loop it is called, or kAllThreads.
  void SelectByBounds(int64_t row, const PagedRows& keys, int64_t n, int64_t count, int thread,
                      std::vector<int32_t>& chosen);

  /// The tokens of one expert: `tokens` slots of gathered_, activations_ and results_ from `first`.
  struct ExpertGroup {
    ExpertMatrices expert;
    int64_t first = 0;
    int64_t tokens = 0;
  };
  /// From the inputs in x [rows, d] to results_ in the slots of `groups`; `slot_row` and
  /// `slot_weight` say which row a slot is of and what its result counts.
  void ComputeExperts(const Tensor& x, std::span<const ExpertGroup> groups,
                      std::span<const int64_t> slot_row, std::span<const float> slot_weight,
                      float swiglu_limit);

  const kernels::KernelTable& kernels_;
  ThreadPool pool_;
  std::vector<Scratch> scratch_;
  PackedRows plain_, quantised_, activated_, gathered_;
  Tensor mixes_, padded_, biased_, activations_, results_;
  IndexQueries index_queries_;
  std::vector<CandidateList> candidates_;  // by thread
  AlignedArray<float> index_row_scores_;
};

}  // namespace toaster
