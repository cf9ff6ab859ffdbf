// Router and experts, section 10: tokens are grouped by expert, so that each expert's weights are
// read once.

#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/row_operations.h"
#include "tensor/elementary.h"

namespace toaster {

namespace {

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

void CpuBackend::ComputeExperts(const Tensor& x, std::span<const ExpertGroup> groups,
                                std::span<const int64_t> slot_row,
                                std::span<const float> slot_weight, float swiglu_limit) {
  const int64_t d = groups[0].expert.w2->rows, f = groups[0].expert.w1->rows;
  const auto pieces_of = [&](int64_t matrix_rows) {
    // Few tokens touch few experts: pieces are small enough that all threads stay busy to the end.
    int64_t step = 128;
    while (step > 16 &&
           static_cast<int64_t>(groups.size()) * (matrix_rows / step) < 8 * pool_.threads())
      step /= 2;
    std::vector<Piece> pieces;
    for (size_t g = 0; g < groups.size(); ++g) {
      const int64_t rows =
          LongerPiece(step, static_cast<int64_t>(groups.size()) * matrix_rows, groups[g].tokens);
      for (int64_t begin = 0; begin < matrix_rows; begin += rows) {
        pieces.push_back({g, begin, std::min(begin + rows, matrix_rows)});
      }
    }
    return pieces;
  };
  // Calls work(group, slot) for every slot of the groups.
  std::vector<int64_t> ends;
  for (const ExpertGroup& group : groups)
    ends.push_back((ends.empty() ? 0 : ends.back()) + group.tokens);
  const auto for_slots = [&](const auto& work) {
    pool_.ParallelFor(ends.back(), 8, [&](int64_t begin, int64_t end, int) {
      size_t g =
          static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
      for (int64_t i = begin; i < end; ++i) {
        while (i == ends[g]) ++g;
        work(groups[g], groups[g].first + groups[g].tokens - (ends[g] - i));
      }
    });
  };

  for_slots([&](const ExpertGroup& group, int64_t slot) {
    PackRow(x.Row(slot_row[static_cast<size_t>(slot)]), x.width(), group.expert.w1->quantised(),
            gathered_, slot);
  });

  // Gate, up and their product.
  std::vector<Piece> pieces = pieces_of(f);
  pool_.ParallelFor(static_cast<int64_t>(pieces.size()), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      Scratch& scratch = scratch_[static_cast<size_t>(thread)];
                      for (int64_t i = begin; i < end; ++i) {
                        const Piece& piece = pieces[static_cast<size_t>(i)];
                        const ExpertGroup& group = groups[piece.group];
                        const int64_t count = piece.end - piece.begin;
                        scratch.floats.Resize(2 * group.tokens * count);
                        float *gate = scratch.floats.data(), *up = gate + group.tokens * count;
                        const int64_t x_offset = group.first * gathered_.stride;
                        Multiply({group.expert.w1, piece.begin, piece.end, &gathered_, x_offset,
                                  gathered_.stride, group.tokens, gate, count, true},
                                 scratch);
                        Multiply({group.expert.w3, piece.begin, piece.end, &gathered_, x_offset,
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
  for_slots([&](const ExpertGroup& group, int64_t slot) {
    float* a = activations_.Row(slot);
    for (int64_t i = 0; i < f; ++i) a[i] = Round(a[i]);
    PackRow(a, f, group.expert.w2->quantised(), activated_, slot);
  });
  pieces = pieces_of(d);
  pool_.ParallelFor(static_cast<int64_t>(pieces.size()), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      for (int64_t i = begin; i < end; ++i) {
                        const Piece& piece = pieces[static_cast<size_t>(i)];
                        const ExpertGroup& group = groups[piece.group];
                        Multiply({group.expert.w2, piece.begin, piece.end, &activated_,
                                  group.first * activated_.stride, activated_.stride, group.tokens,
                                  results_.Row(group.first) + piece.begin, d, true},
                                 scratch_[static_cast<size_t>(thread)]);
                      }
                    });
}

void CpuBackend::Experts(const Tensor& x, const Routing& routing, ExpertSource& experts,
                         const ExpertMatrices& shared, float swiglu_limit, Tensor& output) {
  const int64_t rows = x.rows(), k = routing.experts_per_token, d = shared.w2->rows,
                f = shared.w1->rows;

  // Slots: one per row and expert, grouped by rising expert number; the shared expert's come last.
  const int32_t most = *std::max_element(routing.experts.begin(), routing.experts.end());
  std::vector<int64_t> first(static_cast<size_t>(most) + 2, 0);
  for (const int32_t expert : routing.experts) ++first[static_cast<size_t>(expert) + 1];
  std::vector<int32_t> wanted;
  for (size_t e = 0; e + 1 < first.size(); ++e) {
    if (first[e + 1] > 0) wanted.push_back(static_cast<int32_t>(e));
    first[e + 1] += first[e];
  }
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
  gathered_.Resize(slots, x.width(), official());
  activations_.Reshape({slots, f});
  activated_.Resize(slots, f, official());
  results_.Reshape({slots, d});

  // Those in memory and the shared expert first, the others as they come. Every slot has a result
  // of its own, so the order is free.
  std::vector<ExpertGroup> groups;
  for (std::span<int32_t> left = wanted; groups.empty() || !left.empty();) {
    const bool first_round = groups.empty();
    const auto count = static_cast<size_t>(left.empty() ? 0 : experts.Acquire(left, !first_round));
    const std::span<int32_t> here = left.first(count);
    groups.clear();
    for (const int32_t expert : here) {
      const auto e = static_cast<size_t>(expert);
      groups.push_back({experts.Matrices(expert), first[e], first[e + 1] - first[e]});
    }
    if (first_round) groups.push_back({shared, rows * k, rows});
    ComputeExperts(x, groups, slot_row, slot_weight, swiglu_limit);
    experts.Release(here);
    left = left.subspan(count);
  }

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
