// Router and experts, section 10: tokens are grouped by expert, so that each expert's weights are
// read once.

#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"
#include "tensor/elementary.h"

namespace toaster {

namespace {

// The tokens of one expert: `tokens` slots from `first`, in rising order of rows.
struct Group {
  const ExpertMatrices* expert;
  int64_t first;
  int64_t tokens;
};

// Rows [begin, end) of a group's matrix.
struct Piece {
  size_t group;
  int64_t begin, end;
};

}  // namespace

void CpuBackend::Route(const Tensor& x, const RouteParameters& parameters, Routing& routing) {
  const int64_t k = parameters.experts_per_token;
  Linear(x, std::vector<Projection>{{&parameters.gate, &routing.scores, false}});
  routing.experts_per_token = k;
  routing.experts.resize(static_cast<size_t>(x.rows() * k));
  routing.weights.resize(routing.experts.size());
  pool_.ParallelFor(x.rows(), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t* table =
          parameters.bias == nullptr ? parameters.table_experts.data() + row * k : nullptr;
      RouteRow(routing.scores.Row(row), parameters, table, routing.experts.data() + row * k,
               routing.weights.data() + row * k);
    }
  });
}

void CpuBackend::Experts(const Tensor& x, const Routing& routing,
                         std::span<const ExpertMatrices> experts, const ExpertMatrices& shared,
                         float swiglu_limit, Tensor& output) {
  const int64_t rows = x.rows(), k = routing.experts_per_token, d = shared.w2->rows,
                f = shared.w1->rows;

  // Slots: one per row and expert, grouped by rising expert number; the shared expert's come last.
  std::vector<int64_t> first(experts.size() + 1, 0);
  for (const int32_t expert : routing.experts) ++first[static_cast<size_t>(expert) + 1];
  for (size_t e = 0; e < experts.size(); ++e) first[e + 1] += first[e];
  const int64_t slots = rows * k + rows;
  std::vector<int64_t> slot_row(static_cast<size_t>(slots)), slot_of(routing.experts.size());
  std::vector<float> slot_weight(static_cast<size_t>(slots), 1.0f);
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  for (size_t i = 0; i < routing.experts.size(); ++i) {
    const int64_t slot = next[static_cast<size_t>(routing.experts[i])]++;
    slot_of[i] = slot;
    slot_row[static_cast<size_t>(slot)] = static_cast<int64_t>(i) / k;
    slot_weight[static_cast<size_t>(slot)] = routing.weights[i];
  }
  for (int64_t row = 0; row < rows; ++row) slot_row[static_cast<size_t>(rows * k + row)] = row;
  std::vector<Group> groups;
  for (size_t e = 0; e < experts.size(); ++e) {
    if (first[e + 1] > first[e]) groups.push_back({&experts[e], first[e], first[e + 1] - first[e]});
  }
  groups.push_back({&shared, rows * k, rows});
  const auto slot_expert = [&](int64_t slot) -> const ExpertMatrices& {
    return *std::prev(
                std::upper_bound(groups.begin(), groups.end(), slot,
                                 [](int64_t at, const Group& group) { return at < group.first; }))
                ->expert;
  };
  const auto pieces_of = [&](int64_t matrix_rows) {
    // Few tokens touch few experts: pieces are small enough that all threads stay busy to the end.
    int64_t step = 128;
    while (step > 16 &&
           static_cast<int64_t>(groups.size()) * (matrix_rows / step) < 8 * pool_.threads())
      step /= 2;
    std::vector<Piece> pieces;
    for (size_t g = 0; g < groups.size(); ++g) {
      for (int64_t begin = 0; begin < matrix_rows; begin += step) {
        pieces.push_back({g, begin, std::min(begin + step, matrix_rows)});
      }
    }
    return pieces;
  };

  // Inputs in slot order.
  gathered_.Resize(slots, x.width(), official());
  pool_.ParallelFor(slots, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t slot = begin; slot < end; ++slot) {
      PackRow(x.Row(slot_row[static_cast<size_t>(slot)]), x.width(),
              slot_expert(slot).w1->quantised(), gathered_, slot);
    }
  });

  // Gate, up and their product.
  activations_.Reshape({slots, f});
  std::vector<Piece> pieces = pieces_of(f);
  pool_.ParallelFor(static_cast<int64_t>(pieces.size()), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      Scratch& scratch = scratch_[static_cast<size_t>(thread)];
                      for (int64_t i = begin; i < end; ++i) {
                        const Piece& piece = pieces[static_cast<size_t>(i)];
                        const Group& group = groups[piece.group];
                        const int64_t count = piece.end - piece.begin;
                        scratch.floats.Resize(2 * group.tokens * count);
                        float *gate = scratch.floats.data(), *up = gate + group.tokens * count;
                        const int64_t x_offset = group.first * gathered_.stride;
                        Multiply({group.expert->w1, piece.begin, piece.end, &gathered_, x_offset,
                                  gathered_.stride, group.tokens, gate, count, true},
                                 scratch);
                        Multiply({group.expert->w3, piece.begin, piece.end, &gathered_, x_offset,
                                  gathered_.stride, group.tokens, up, count, true},
                                 scratch);
                        for (int64_t t = 0; t < group.tokens; ++t) {
                          const int64_t slot = group.first + t;
                          kernels_.swiglu(gate + t * count, up + t * count, count, swiglu_limit,
                                          slot_weight[static_cast<size_t>(slot)],
                                          activations_.Row(slot) + piece.begin);
                        }
                      }
                    });

  // Down.
  activated_.Resize(slots, f, official());
  pool_.ParallelFor(slots, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t slot = begin; slot < end; ++slot) {
      float* a = activations_.Row(slot);
      for (int64_t i = 0; i < f; ++i) a[i] = Round(a[i]);
      PackRow(a, f, slot_expert(slot).w2->quantised(), activated_, slot);
    }
  });
  results_.Reshape({slots, d});
  pieces = pieces_of(d);
  pool_.ParallelFor(static_cast<int64_t>(pieces.size()), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      for (int64_t i = begin; i < end; ++i) {
                        const Piece& piece = pieces[static_cast<size_t>(i)];
                        const Group& group = groups[piece.group];
                        Multiply({group.expert->w2, piece.begin, piece.end, &activated_,
                                  group.first * activated_.stride, activated_.stride, group.tokens,
                                  results_.Row(group.first) + piece.begin, d, true},
                                 scratch_[static_cast<size_t>(thread)]);
                      }
                    });

  // Sum per row: routed experts rising by number, which is rising by slot, then the shared one.
  output.Reshape({rows, d});
  pool_.ParallelFor(rows, 4, [&](int64_t begin, int64_t end, int) {
    std::vector<int64_t> order(static_cast<size_t>(k));
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(slot_of.begin() + row * k, k, order.begin());
      std::sort(order.begin(), order.end());
      float* sum = output.Row(row);
      std::fill_n(sum, d, 0.0f);
      for (const int64_t slot : order) {
        for (int64_t i = 0; i < d; ++i) sum[i] += results_.Row(slot)[i];
      }
      const float* y = results_.Row(rows * k + row);
      for (int64_t i = 0; i < d; ++i) sum[i] = Round(sum[i] + y[i]);
    }
  });
}

}  // namespace toaster
