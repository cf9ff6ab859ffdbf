#pragma once

#include <functional>
#include <vector>

#include "backend/backward.h"
#include "backend/cpu/kernels/kernels.h"
#include "base/thread_pool.h"

namespace toaster {

/// The fast backward: the operations of ReferenceBackward, file by file, on threads and the kernel
/// table of one instruction set.
///
/// In `official` numerics matrix products take BF16 operands, gradients rounded like activations,
/// and add in float; router and hyper-connections stay floats, as in the forward pass. Pieces of
/// work are cut by fixed sizes and their sums added in their order, so that neither threads nor
/// tables change a bit. Results differ from the reference's by rounding only.
class CpuBackward : public BackwardBackend {
 public:
  CpuBackward(Numerics numerics, int threads, const kernels::KernelTable& kernels);

  void Embed(std::span<const int32_t> tokens, const Tensor& grad_output,
             float* grad_embed) override;
  void HyperPre(const Tensor& streams, const HyperParameters& parameters, const Tensor& grad_input,
                const Tensor& grad_post, const Tensor& grad_comb, const HyperGradients& gradients,
                Tensor& grad_streams) override;
  void HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb, const Tensor& streams,
                 Tensor& grad_streams, Tensor& grad_y, Tensor& grad_post,
                 Tensor& grad_comb) override;
  void HyperHead(const Tensor& streams, const HyperParameters& parameters,
                 const Tensor& grad_output, const HyperGradients& gradients,
                 Tensor& grad_streams) override;
  void RmsNorm(const Tensor& x, const Vector& weight, float eps, const Tensor& grad_output,
               float* grad_weight, Tensor& grad_x) override;
  void Linear(const Tensor& x, std::span<const ProjectionGradient> projections,
              Tensor* grad_x) override;
  void GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                     const Tensor& grad_output, float* grad_weight, Tensor& grad_x) override;
  void PrepareQueries(const Tensor& q, float eps, const Rotation& rotation, Tensor& grad) override;
  void StoreEntries(const Rotation& rotation, Tensor& grad) override;
  void Compress(const Tensor& values, const Tensor& scores, const CompressParameters& parameters,
                std::span<const Segment> segments, std::span<const Tensor> grad_entries,
                float* grad_ape, float* grad_norm, Tensor& grad_values,
                Tensor& grad_scores) override;
  void Attend(const Tensor& q, const AttendParameters& parameters, const Rotation& rotation,
              std::span<const Segment> segments, std::span<const AttendSource> sources,
              const Tensor& grad_output, Tensor& grad_q, Tensor& grad_kv,
              std::vector<Tensor>& grad_entries, float* grad_sink,
              EntryProbabilities* probabilities) override;
  void SelectEntries(const Tensor& q, const Tensor& weights, const Rotation& rotation,
                     std::span<const Segment> segments, std::span<const PagedRows* const> keys,
                     const Selection& selection, const EntryProbabilities& probabilities,
                     IndexLoss& loss, Tensor& grad_q, Tensor& grad_weights,
                     std::vector<Tensor>& grad_keys) override;
  void Route(const Tensor& x, const RouteParameters& parameters, const Routing& routing,
             std::span<const Segment> segments, std::span<const float> grad_weights,
             BalanceLoss& balance, float* grad_gate, Tensor& grad_x) override;
  void Experts(const Tensor& x, const Routing& routing, std::span<const ExpertMatrices> experts,
               const ExpertMatrices& shared, float swiglu_limit, const Tensor& grad_output,
               std::span<const ExpertGradients> gradients, const ExpertGradients& shared_gradients,
               Tensor& grad_x, std::vector<float>& grad_weights) override;
  void AddToStreams(const Tensor& grad_streams, Tensor& grad_e) override;
  double CrossEntropy(const Tensor& x, const Matrix& head, std::span<const int32_t> targets,
                      float weight, float* grad_head, Tensor& grad_x) override;
  void Orthogonalise(std::span<const MatrixSpan> matrices) override;
  void ForEach(int64_t count, const std::function<void(int64_t)>& body) override;

 private:
  /// One side of a product: rows as the kernels want them, BF16 or floats, padded with zeros. In
  /// memory of its own, or where they were if they are so already.
  struct Operand {
    const uint16_t* words = nullptr;
    const float* floats = nullptr;
    int64_t rows = 0;
    int64_t inner = 0;
    int64_t stride = 0;  ///< in elements
    bool bf16 = false;
    AlignedArray<uint16_t> own_words;
    AlignedArray<float> own_floats;
    /// Makes room of its own.
    void Resize(int64_t row_count, int64_t width, bool use_bf16);
  };
  /// Memory of one thread.
  struct Scratch {
    AlignedArray<std::byte> matmul;
    AlignedArray<float> tile;
  };
  /// A matrix on its way to orthogonality.
  struct NewtonSchulz {
    Tensor y, gram, square;
    Operand operand, symmetric;
  };
  /// One expert's rows and what is computed on them.
  struct ExpertRows {
    Tensor inputs, grads, gate, up, activation, grad_activation, grad_gate, grad_up, grad_inputs;
    std::vector<float> weights, grad_weights;
  };

  void ForRows(int64_t rows, int64_t grain, const std::function<void(int64_t)>& body);
  /// x [rows, inner], rows `x_stride` apart; `quantise`: rounded to E4M3 first.
  void PackRows(const float* x, int64_t rows, int64_t inner, int64_t x_stride, bool bf16,
                bool quantise, Operand& operand);
  /// Rows [first, first + count) of a stored weight.
  void PackWeight(const Matrix& weight, int64_t first, int64_t count, bool bf16, Operand& operand);
  /// c[i * c_stride + j] = sum of a.row(i) * b.row(j).
  void Multiply(const Operand& a, const Operand& b, float* c, int64_t c_stride);
  /// c[i * c_stride + j] = sum over rows s of v of p(i, s) * v(s, j), in their order, after what is
  /// there if it is to be added to; p is given by rows i, or `turned` by rows s. Nothing has to be
  /// transposed for the products of a backward pass.
  void Accumulate(const Operand& p, bool turned, const Operand& v, float* c, int64_t c_stride,
                  bool add);
  /// Rows [top, top + rows) and columns [left, left + columns) of the same; c is the piece's first
  /// number, `columns` with BF16 a multiple of 32.
  void AccumulatePiece(const Operand& p, bool turned, const Operand& v, int64_t top, int64_t rows,
                       int64_t left, int64_t columns, float* c, int64_t c_stride) const;
  /// See ReferenceBackward::Product; x is packed as the product took it, and says whether operands
  /// are BF16. `add`: to grad_x, else it is set. No gradient where one is null.
  void Product(const Operand& x, const Matrix& weight, int64_t first, int64_t count,
               const float* grad_y, int64_t y_stride, float* grad_weight, float* grad_x,
               int64_t grad_x_stride, bool add);
  /// Exp(logit - maximum) and the sum of them: as floats in place, or as BF16 `numerators`, filled
  /// up with zeros. Rows have room for the padding.
  double Softmax(float* logits, int64_t vocabulary, float maximum, uint16_t* numerators) const;
  bool Quantises(const Matrix& weight) const { return quantises() && weight.quantised(); }
  /// Adds sum over rows of x [rows, width] to `sums`, in fixed chunks of rows.
  void AddRows(const Tensor& x, float* sums);

  void HyperBackward(const Tensor& streams, const HyperParameters& parameters, bool head,
                     const Tensor& grad_read, const Tensor* grad_post, const Tensor* grad_comb,
                     const HyperGradients& gradients, Tensor& grad_streams);
  /// From an expert's inputs [rows, d], the gradients of its outputs and `expert_rows_.weights` to
  /// grad_inputs (set) and `expert_rows_.grad_weights`.
  void Expert(const ExpertMatrices& expert, const Tensor& inputs, const Tensor& grads, float limit,
              const ExpertGradients& gradients, Tensor& grad_inputs);
  /// On the calling thread, or on all of them together.
  void OrthogonaliseOne(const MatrixSpan& matrix, bool together, NewtonSchulz& work);
  struct AttendBlock;
  void AttendBlockBackward(const AttendBlock& block, Scratch& scratch) const;

  float Round(float x) const { return official() ? RoundBf16(x) : x; }

  const kernels::KernelTable& kernels_;
  ThreadPool pool_;
  std::vector<Scratch> scratch_;
  std::vector<NewtonSchulz> newton_schulz_;
  Operand a_, b_, inputs_, quantised_inputs_, activations_, gate_weight_, up_weight_, head_,
      probabilities_;
  Tensor mixes_, partial_, logits_;
  ExpertRows expert_rows_;
};

}  // namespace toaster
