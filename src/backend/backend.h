#pragma once

// The operations of a V4 model, at the size at which a processor wants them.
//
// A Backend computes; it knows no layers, no names and no files. Tensors are host floats,
// row-major, one row per token of a batch; outputs are reshaped by the operation. Weights are seen
// in place. Section numbers, here and in the model and tensor folders, are those of docs/model.md.
//
// All implementations give the same bits: sums follow tensor/summation.h, elementary functions
// tensor/elementary.h, roundings tensor/number_formats.h. Where an operation has an order of its
// own, it is stated at the operation.
//
// One thread calls a backend at a time, holding ScopedFlushDenormals.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/machine_limits.h"
#include "tensor/cache_rows.h"
#include "tensor/matrix.h"
#include "tensor/tensor.h"

namespace toaster {

/// `official` rounds as the reference inference code does; `fp32` (for debugging) keeps every
/// activation and cache entry in float, expands quantised weights and leaves out every rounding.
/// The third, of the reference backend alone, has the roundings to E4M3 and E2M1 of `official` and
/// none to BF16: recorded gradients of quantisation-aware training were made so.
enum class Numerics { kOfficial, kFloat32, kQuantisedFloat32 };

/// A run of consecutive tokens of one sequence inside a batch.
struct Segment {
  int64_t first_row = 0;  ///< its first row in the batch
  int64_t rows = 0;
  int64_t start = 0;  ///< position of its first token in the sequence
};

/// Cosine and sine of every row's rotation angles, [rows, pairs] each (section 6).
struct Rotation {
  Tensor cosine;
  Tensor sine;
};

/// Shape and constants of the hyper-connections of one sub-layer or head (section 5).
struct HyperParameters {
  const Matrix& fn;
  const Vector& base;
  const Vector& scale;
  int64_t sinkhorn_iterations = 0;  ///< unused by heads
  float eps = 0;                    ///< hc_eps
  float norm_eps = 0;
};

/// One product of Linear.
struct Projection {
  const Matrix* weight = nullptr;
  Tensor* output = nullptr;  ///< becomes [rows, weight rows]
  bool round_output = true;  ///< to BF16; false for router, compressor and logits
};

/// What a compressor keeps between chunks (section 8.1). Floats in both numerics. `pending` rows
/// count `position mod ratio`; `previous` is valid once a block is complete.
struct CompressorTail {
  Tensor pending_values;   ///< [ratio, k*D]
  Tensor pending_scores;   ///< [ratio, k*D], position bias added
  Tensor previous_values;  ///< [ratio, D], first half of the channels; ratio 4 only
  Tensor previous_scores;
  int64_t allocated_bytes() const {
    return 4 * (pending_values.size() + pending_scores.size() + previous_values.size() +
                previous_scores.size());
  }
};

/// Parameters of one compressor.
struct CompressParameters {
  int64_t ratio = 0;
  const Matrix& ape;   ///< [ratio, k*D]
  const Vector& norm;  ///< [D]
  float norm_eps = 0;
  std::span<const float> frequencies;  ///< of the layer, radians per position and pair
  bool indexer_key = false;            ///< Hadamard and E2M1 instead of E4M3
};

/// One sequence's part of Compress.
struct CompressTarget {
  CompressorTail* tail = nullptr;
  PagedRows* rows = nullptr;  ///< finished entries are appended here
};

/// Which compressed entries each row attends to, ascending; `all` means every complete one.
struct Selection {
  bool all = true;
  std::vector<std::vector<int32_t>> entries;  ///< per row, if not `all`
};

/// The cached keys of one sequence as Attend sees them. Window entries before the segment are in
/// `ring` (position p at row p mod window), the segment's own ones in `chunk`.
struct AttendSource {
  const uint8_t* ring = nullptr;
  const uint8_t* chunk = nullptr;
  const PagedRows* compressed = nullptr;  ///< null where the layer has none
};

struct AttendParameters {
  int64_t window = 0;
  int64_t ratio = 0;  ///< 0: no compressed entries
  EntryShape entry;
  const Vector& sink;          ///< [heads]
  const Selection& selection;  ///< of compressed entries
};

/// The experts chosen for each row, in order of selection.
struct Routing {
  int64_t experts_per_token = 0;
  std::vector<int32_t> experts;  ///< [rows, experts per token]
  std::vector<float> weights;    ///< the same shape
  Tensor scores;                 ///< [rows, experts], before the bias
};

struct RouteParameters {
  const Matrix& gate;
  const Vector* bias = nullptr;  ///< null in hash-routed layers
  std::span<const int32_t>
      table_experts;  ///< hash-routed layers: the choice, [rows, experts per token]
  int64_t experts_per_token = 0;
  float scale = 1;
};

/// The three matrices of one expert: gate, down, up.
struct ExpertMatrices {
  const Matrix* w1 = nullptr;
  const Matrix* w2 = nullptr;
  const Matrix* w3 = nullptr;
};

/// The routed experts of one layer as Experts() sees them: some may still be on their way into
/// memory. One thread at a time.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;
  /// Puts those of `wanted` that are in memory in front and returns how many; with `wait`, waits
  /// until there is one at least. They stay in memory until Release(). Throws Error(kIo) or
  /// Error(kCorruptFile) if one cannot be had.
  virtual int64_t Acquire(std::span<int32_t> wanted, bool wait) = 0;
  /// Of an expert that was acquired.
  virtual ExpertMatrices Matrices(int32_t expert) const = 0;
  /// Says that nobody looks at these experts any more; each is acquired once in a layer.
  virtual void Release(std::span<const int32_t> experts) = 0;
};

/// Experts that are all in memory, by number.
class ResidentExperts : public ExpertSource {
 public:
  explicit ResidentExperts(std::span<const ExpertMatrices> experts) : experts_(experts) {}
  int64_t Acquire(std::span<int32_t> wanted, bool) override {
    return static_cast<int64_t>(wanted.size());
  }
  ExpertMatrices Matrices(int32_t expert) const override {
    return experts_[static_cast<size_t>(expert)];
  }
  void Release(std::span<const int32_t>) override {}

 private:
  std::span<const ExpertMatrices> experts_;
};

class Backend {
 public:
  explicit Backend(Numerics numerics) : numerics_(numerics) {}
  virtual ~Backend() = default;
  Numerics numerics() const { return numerics_; }
  bool official() const { return numerics_ == Numerics::kOfficial; }
  bool quantises() const { return numerics_ != Numerics::kFloat32; }
  /// "reference", "cpu/avx2", ...
  virtual std::string name() const = 0;
  /// Measures the machine with this backend's threads and instructions, in about a second and with
  /// 1 GiB of memory. All zeros for a backend that no speed is expected of.
  virtual MachineLimits MeasureLimits() { return {}; }
  /// BF16 additions and multiplications a second just now, over a fraction of a second: what a
  /// speed is compared with on a machine that others use, too. 0 for a backend that no speed is
  /// expected of.
  virtual double CurrentBf16Rate() { return 0; }

  /// output [rows, copies, d]: the embedding row of each token, `copies` times (section 3). Tokens
  /// are in range.
  virtual void Embed(std::span<const int32_t> tokens, const Matrix& embed, int64_t copies,
                     Tensor& output) = 0;

  /// HC_PRE (5.1): from streams [rows, n, d] the sub-layer's input [rows, d], post [rows, n] and
  /// comb [rows, n, n].
  virtual void HyperPre(const Tensor& streams, const HyperParameters& parameters, Tensor& input,
                        Tensor& post, Tensor& comb) = 0;
  /// HC_POST (5.3): output[k] = post[k] * y + sum over j of comb[j, k] * streams[j]; the sum
  /// first, j rising, by fused multiply-adds from 0, then post[k] * y added by one more. `streams`
  /// and `output` may be the same tensor.
  virtual void HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                         const Tensor& streams, Tensor& output) = 0;
  /// HC_HEAD (5.4): output [rows, d].
  virtual void HyperHead(const Tensor& streams, const HyperParameters& parameters,
                         Tensor& output) = 0;

  /// Over the last `weight.size` numbers of each run of x (section 2); x and output may be the same
  /// tensor.
  virtual void RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) = 0;

  /// y = x W^T for several weights of one input x [rows, columns] (11.2, 11.3). A quantised
  /// weight's input is rounded to E4M3 in blocks of 128 first.
  virtual void Linear(const Tensor& x, std::span<const Projection> projections) = 0;
  /// The block-diagonal product of 7.6: x [rows, groups * k], weight [groups * r, k], output [rows,
  /// groups * r]. The weight is expanded to BF16, the input not quantised, the output rounded.
  virtual void GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                             Tensor& output) = 0;

  /// Sections 7.1.3 and 7.1.4 in place on q [rows, heads, c]: norm without weight, then rotation.
  virtual void PrepareQueries(Tensor& q, float eps, const Rotation& rotation) = 0;
  /// Section 7.2.2 and 7.2.3: rotates kv [rows, c] and stores each row as a cache entry at
  /// `entries`, EntryRowBytes(shape) apart.
  virtual void StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                            uint8_t* entries) = 0;

  /// Section 8: feeds values and scores [rows, k*D] (scores without position bias) of each segment
  /// to its sequence's compressor and appends the entries that become complete. The softmax over a
  /// channel's slots sums exponentials, and products by fused multiply-adds, in rising order of
  /// slots.
  virtual void Compress(const Tensor& values, const Tensor& scores,
                        const CompressParameters& parameters, std::span<const Segment> segments,
                        std::span<const CompressTarget> targets) = 0;

  /// Section 9: q [rows, index heads, D] (as the projection gave it; changed), weights [rows, index
  /// heads] (likewise), keys one PagedRows per segment. Selects for each row the `topk` best of its
  /// complete blocks (entries of ratio 4). `scores`, if given, becomes [rows, most keys of a
  /// segment] with -infinity for blocks not complete, and is then filled also for rows that take
  /// every block.
  virtual void SelectEntries(Tensor& q, Tensor& weights, const Rotation& rotation,
                             std::span<const Segment> segments,
                             std::span<const PagedRows* const> keys, int64_t topk,
                             Selection& selection, Tensor* scores) = 0;

  /// Sections 7.3 to 7.5: q [rows, heads, c] to output [rows, heads, c], already rotated back.
  /// Order: window entries rising by position p, then compressed ones by their number j in the
  /// row's list; in the denominator an entry belongs to lane p mod 16 (j mod 16); in the value sum
  /// the odd entry of each pair (2i, 2i+1) of p (of j) comes before the even one.
  virtual void Attend(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
                      std::span<const Segment> segments, std::span<const AttendSource> sources,
                      Tensor& output) = 0;

  /// Section 10.1 for x [rows, d].
  virtual void Route(const Tensor& x, const RouteParameters& parameters, Routing& routing) = 0;
  /// Sections 10.2 and 10.3: output [rows, d] = the chosen experts of each row, rising by number,
  /// then the shared expert. Takes every chosen expert from `experts` once, in any order, and gives
  /// it back.
  virtual void Experts(const Tensor& x, const Routing& routing, ExpertSource& experts,
                       const ExpertMatrices& shared, float swiglu_limit, Tensor& output) = 0;

  /// Section 13: streams[row, k] = e[row] + h[row, k], rounded; h and streams may be the same
  /// tensor.
  virtual void AddToStreams(const Tensor& e, const Tensor& h, Tensor& streams) = 0;

  /// Bytes of one cached entry or indexer key in this numerics.
  int64_t EntryRowBytes(EntryShape shape) const {
    return official() ? EntryBytes(shape) : 4 * shape.width();
  }
  int64_t KeyRowBytes(int64_t width) const { return official() ? KeyBytes(width) : 4 * width; }

 protected:
  /// What `official` does to every activation.
  float Round(float x) const { return official() ? RoundBf16(x) : x; }

 private:
  Numerics numerics_;
};

}  // namespace toaster
