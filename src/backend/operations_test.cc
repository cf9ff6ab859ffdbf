// Every backend against the reference, operation by operation, bit for bit, on shapes that no
// recorded model has.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/flush_denormals.h"
#include "base/random.h"
#include "tensor/cache_rows.h"

namespace toaster {
namespace {

struct Case {
  std::string kernels;
  int threads;
  Numerics numerics;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const std::string& table : RunnableKernels()) {
    for (const int threads : {1, 3}) {
      for (const Numerics numerics : {Numerics::kOfficial, Numerics::kFloat32})
        cases.push_back({table, threads, numerics});
    }
  }
  return cases;
}

// Numbers around zero with magnitudes from 2^-6 to 2^2, BF16 values so that both numerics may use
// them.
class Source {
 public:
  float Number() {
    const auto bits = Philox(5, counter_++, 0);
    const float magnitude = static_cast<float>(UniformDouble(bits[0], bits[1]) + 0.5) *
                            std::bit_cast<float>((121u + bits[2] % 9) << 23);
    return RoundBf16(bits[3] & 1 ? magnitude : -magnitude);
  }
  Tensor Numbers(std::initializer_list<int64_t> shape) {
    Tensor tensor(shape);
    for (int64_t i = 0; i < tensor.size(); ++i) tensor.data()[i] = Number();
    return tensor;
  }
  uint32_t Integer(uint32_t below) { return Philox(6, counter_++, 0)[0] % below; }

 private:
  uint64_t counter_ = 0;
};

// Experts of which none is there at first; then the last ones come first, two at a time.
class LateExperts : public ResidentExperts {
 public:
  using ResidentExperts::ResidentExperts;
  int64_t Acquire(std::span<int32_t> wanted, bool wait) override {
    if (!wait) return 0;
    std::reverse(wanted.begin(), wanted.end());
    const auto count = std::min<int64_t>(2, static_cast<int64_t>(wanted.size()));
    held_ += count;
    return count;
  }
  void Release(std::span<const int32_t> experts) override {
    held_ -= static_cast<int64_t>(experts.size());
  }
  int64_t held() const { return held_; }

 private:
  int64_t held_ = 0;
};

// A weight with its own storage, at an odd address.
class StoredMatrix {
 public:
  StoredMatrix(Source& source, NumberFormat format, ScaleFormat scale_format, int64_t rows,
               int64_t columns) {
    matrix_ = {format, scale_format, rows, columns, nullptr, nullptr};
    data_.resize(static_cast<size_t>(matrix_.data_bytes()) + 1);
    scales_.resize(static_cast<size_t>(matrix_.scale_bytes()) + 1);
    for (uint8_t& byte : data_) byte = static_cast<uint8_t>(source.Integer(256));
    if (format == NumberFormat::kE4m3) {
      for (uint8_t& byte : data_) byte = (byte & 0x7F) == 0x7F ? 0 : byte;  // no NaN
    }
    uint8_t *data = data_.data() + 1, *scales = scales_.data() + 1;
    for (int64_t i = 0; i < rows * columns; ++i) {
      const float x = source.Number();
      const uint16_t bits = FloatToBf16(x);
      if (format == NumberFormat::kFloat32) std::memcpy(data + 4 * i, &x, 4);
      if (format == NumberFormat::kBf16) std::memcpy(data + 2 * i, &bits, 2);
    }
    for (int64_t i = 0; i < matrix_.scale_bytes(); ++i)
      scales[i] = static_cast<uint8_t>(110 + source.Integer(12));
    if (scale_format == ScaleFormat::kFloat32) {
      for (int64_t i = 0; i < matrix_.scale_bytes() / 4; ++i) {
        const float scale = E8m0ToFloat(scales[4 * i]);
        std::memcpy(scales + 4 * i, &scale, 4);
      }
    }
    matrix_.data = data;
    if (scale_format != ScaleFormat::kNone) matrix_.scales = scales;
  }
  const Matrix& get() const { return matrix_; }

 private:
  Matrix matrix_;
  std::vector<uint8_t> data_, scales_;
};

class StoredVector {
 public:
  StoredVector(Source& source, int64_t size) : values_(static_cast<size_t>(size)) {
    for (float& x : values_) x = source.Number();
    vector_ = {NumberFormat::kFloat32, size, reinterpret_cast<const uint8_t*>(values_.data())};
  }
  const Vector& get() const { return vector_; }

 private:
  std::vector<float> values_;
  Vector vector_;
};

void ExpectSame(const Tensor& got, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (int64_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got.data()[i]), std::bit_cast<uint32_t>(expected.data()[i]))
        << what << " at " << i << ": " << got.data()[i] << " and " << expected.data()[i];
  }
}

class OperationsTest : public ::testing::TestWithParam<Case> {
 protected:
  OperationsTest()
      : reference_(CreateBackend({"reference", "", 0, GetParam().numerics})),
        cpu_(CreateBackend({"cpu", GetParam().kernels, GetParam().threads, GetParam().numerics})) {}

  ScopedFlushDenormals flush_;
  std::unique_ptr<Backend> reference_, cpu_;
  Source source_;
};

TEST_P(OperationsTest, Linear) {
  struct Shape {
    NumberFormat format;
    ScaleFormat scales;
    int64_t rows, columns;
  };
  const std::vector<Shape> shapes = {{NumberFormat::kE4m3, ScaleFormat::kE8m0, 300, 256},
                                     {NumberFormat::kE4m3, ScaleFormat::kFloat32, 129, 384},
                                     {NumberFormat::kE2m1, ScaleFormat::kE8m0, 77, 384},
                                     {NumberFormat::kBf16, ScaleFormat::kNone, 1, 7},
                                     {NumberFormat::kBf16, ScaleFormat::kNone, 65, 200}};
  for (const Shape& shape : shapes) {
    for (const int64_t tokens : {1, 2, 5, 17, 70, 245}) {
      const StoredMatrix weight(source_, shape.format, shape.scales, shape.rows, shape.columns);
      const StoredMatrix plain(source_, NumberFormat::kBf16, ScaleFormat::kNone, 40, shape.columns);
      const Tensor x = source_.Numbers({tokens, shape.columns});
      Tensor a, b, expected_a, expected_b;
      cpu_->Linear(x, std::vector<Projection>{{&weight.get(), &a}, {&plain.get(), &b, false}});
      reference_->Linear(x, std::vector<Projection>{{&weight.get(), &expected_a},
                                                    {&plain.get(), &expected_b, false}});
      ExpectSame(a, expected_a, "weight");
      ExpectSame(b, expected_b, "plain");
    }
  }
}

// The input of wo_a may have any width.
TEST_P(OperationsTest, GroupedLinear) {
  for (const int64_t columns : {66, 128, 192, 322}) {
    for (const NumberFormat format : {NumberFormat::kE4m3, NumberFormat::kBf16}) {
      const ScaleFormat scales =
          format == NumberFormat::kE4m3 ? ScaleFormat::kE8m0 : ScaleFormat::kNone;
      for (const int64_t tokens : {1, 6, 40, 245}) {
        const StoredMatrix weight(source_, format, scales, 3 * 70, columns);
        const Tensor x = source_.Numbers({tokens, 3 * columns});
        Tensor y, expected;
        cpu_->GroupedLinear(x, weight.get(), 3, y);
        reference_->GroupedLinear(x, weight.get(), 3, expected);
        ExpectSame(y, expected, "width " + std::to_string(columns));
      }
    }
  }
}

// So many rows that pieces span several tiles of scales; groups that begin in the middle of one.
TEST_P(OperationsTest, LinearOfManyRows) {
  constexpr int64_t kTokens = 9, kColumns = 128, kGroups = 3, kRank = 2080;
  struct Stored {
    NumberFormat format;
    ScaleFormat scales;
  };
  for (const Stored stored : {Stored{NumberFormat::kE4m3, ScaleFormat::kE8m0},
                              {NumberFormat::kE4m3, ScaleFormat::kFloat32},
                              {NumberFormat::kE2m1, ScaleFormat::kE8m0},
                              {NumberFormat::kBf16, ScaleFormat::kNone}}) {
    const StoredMatrix weight(source_, stored.format, stored.scales, kGroups * kRank, kColumns);
    const Tensor x = source_.Numbers({kTokens, kColumns});
    Tensor y, expected;
    cpu_->Linear(x, std::vector<Projection>{{&weight.get(), &y}});
    reference_->Linear(x, std::vector<Projection>{{&weight.get(), &expected}});
    ExpectSame(y, expected, "linear");
    if (stored.format == NumberFormat::kE2m1) continue;  // no model's wo_a
    const Tensor grouped = source_.Numbers({kTokens, kGroups * kColumns});
    cpu_->GroupedLinear(grouped, weight.get(), kGroups, y);
    reference_->GroupedLinear(grouped, weight.get(), kGroups, expected);
    ExpectSame(y, expected, "groups");
  }
}

TEST_P(OperationsTest, HyperConnections) {
  for (const auto& [streams, width] :
       {std::pair<int64_t, int64_t>{4, 128}, {4, 70}, {3, 100}, {2, 33}}) {
    const StoredMatrix fn(source_, NumberFormat::kFloat32, ScaleFormat::kNone,
                          (2 + streams) * streams, streams * width);
    const StoredMatrix head_fn(source_, NumberFormat::kFloat32, ScaleFormat::kNone, streams,
                               streams * width);
    const StoredVector base(source_, (2 + streams) * streams), scale(source_, 3);
    const HyperParameters parameters{fn.get(), base.get(), scale.get(), 20, 1e-6f, 1e-6f};
    const HyperParameters head{head_fn.get(), base.get(), scale.get(), 0, 1e-6f, 1e-6f};
    for (const int64_t tokens : {1, 3, 35}) {
      const Tensor x = source_.Numbers({tokens, streams, width}),
                   y = source_.Numbers({tokens, width});
      Tensor input, post, comb, expected_input, expected_post, expected_comb, output,
          expected_output;
      cpu_->HyperPre(x, parameters, input, post, comb);
      reference_->HyperPre(x, parameters, expected_input, expected_post, expected_comb);
      ExpectSame(input, expected_input, "input");
      ExpectSame(post, expected_post, "post");
      ExpectSame(comb, expected_comb, "comb");
      Tensor updated, expected_updated;
      updated.CopyFrom(x);
      cpu_->HyperPost(y, post, comb, updated, updated);
      reference_->HyperPost(y, post, comb, x, expected_updated);
      ExpectSame(updated, expected_updated, "streams");
      cpu_->HyperHead(x, head, output);
      reference_->HyperHead(x, head, expected_output);
      ExpectSame(output, expected_output, "head");
    }
  }
}

// Fewer rows than threads and more of them, and keys that are there several times, so that equal
// scores are told apart by their numbers.
TEST_P(OperationsTest, SelectEntries) {
  constexpr int64_t kHeads = 5, kWidth = 64, kPairs = 8, kKeys = 333, kTopk = 20;
  const bool official = GetParam().numerics == Numerics::kOfficial;
  PagedRows keys(official ? KeyBytes(kWidth) : 4 * kWidth, 32);
  std::vector<Tensor> different;
  for (int i = 0; i < 40; ++i) different.push_back(source_.Numbers({kWidth}));
  for (int64_t i = 0; i < kKeys; ++i) {
    const float* values = different[source_.Integer(40)].data();
    uint8_t* row = keys.Append();
    if (official) {
      EncodeKey(values, kWidth, row);
    } else {
      std::memcpy(row, values, static_cast<size_t>(keys.row_bytes()));
    }
  }
  for (const int64_t rows : {1, 2, 5}) {
    Tensor q = source_.Numbers({rows, kHeads, kWidth}), weights = source_.Numbers({rows, kHeads});
    const Rotation rotation = {source_.Numbers({rows, kPairs}), source_.Numbers({rows, kPairs})};
    const Segment segment = {0, rows, 4 * kKeys - rows};
    const PagedRows* const of_segment[] = {&keys};
    Tensor expected_q, expected_weights, scores, expected_scores;
    expected_q.CopyFrom(q);
    expected_weights.CopyFrom(weights);
    Selection selection, expected;
    cpu_->SelectEntries(q, weights, rotation, {&segment, 1}, of_segment, kTopk, selection, &scores);
    reference_->SelectEntries(expected_q, expected_weights, rotation, {&segment, 1}, of_segment,
                              kTopk, expected, &expected_scores);
    ExpectSame(scores, expected_scores, "scores");
    ASSERT_EQ(selection.entries, expected.entries) << rows << " rows";
    ASSERT_EQ(static_cast<int64_t>(selection.entries[0].size()), kTopk);
  }
}

// Who does not ask for the scores may get the choice without most of them.
TEST_P(OperationsTest, SelectEntriesWithoutScores) {
  constexpr int64_t kWidth = 128, kPairs = 8, kKeys = 1100;
  const bool official = GetParam().numerics == Numerics::kOfficial;
  struct Shape {
    int64_t rows, heads, topk;
    bool first_are_best;  // the keys that a sample is taken of mislead
  };
  for (const Shape shape :
       {Shape{1, 64, 70, false}, Shape{1, 64, 70, true}, Shape{4, 64, 130, false},
        Shape{1, 64, 16, false}, Shape{4, 64, 16, true}, Shape{4, 90, 1, true},
        Shape{3, 3, kKeys - 1, false}}) {
    PagedRows keys(official ? KeyBytes(kWidth) : 4 * kWidth, 32);
    Tensor values = source_.Numbers({kWidth});
    for (int64_t i = 0; i < kKeys; ++i) {
      // Of every ten keys one is a repetition, five are nearly that, and one has blocks whose
      // scales are too far apart for bounds.
      if (i % 10 >= 7) values = source_.Numbers({kWidth});
      if (i % 10 > 1 && i % 10 < 7) values.data()[source_.Integer(kWidth)] *= 1.5f;
      Tensor key;
      key.CopyFrom(values);
      if (i % 10 == 1) {
        for (int64_t k = 0; k < 32; ++k) key.data()[k] /= 1024;
      }
      if (shape.first_are_best && i < 16) {
        for (int64_t k = 0; k < kWidth; ++k) key.data()[k] *= 64;
      }
      uint8_t* row = keys.Append();
      if (official) {
        EncodeKey(key.data(), kWidth, row);
      } else {
        std::memcpy(row, key.data(), static_cast<size_t>(keys.row_bytes()));
      }
    }
    const int64_t rows = shape.rows, heads = shape.heads;
    Tensor q = source_.Numbers({rows, heads, kWidth}), weights = source_.Numbers({rows, heads});
    for (int64_t i = 0; i < weights.size() && shape.first_are_best; ++i)
      weights.data()[i] = std::abs(weights.data()[i]);
    // The second row has none: its scores are all alike. That of the third is too small for bounds.
    if (rows > 1) std::fill_n(weights.Row(1), heads, 0.0f);
    if (rows > 2) weights.Row(2)[0] = 1e-20f;
    const Rotation rotation = {source_.Numbers({rows, kPairs}), source_.Numbers({rows, kPairs})};
    const Segment segment = {0, rows, 4 * kKeys - rows};
    const PagedRows* const of_segment[] = {&keys};
    Tensor expected_q, expected_weights;
    expected_q.CopyFrom(q);
    expected_weights.CopyFrom(weights);
    Selection selection, expected;
    cpu_->SelectEntries(q, weights, rotation, {&segment, 1}, of_segment, shape.topk, selection,
                        nullptr);
    reference_->SelectEntries(expected_q, expected_weights, rotation, {&segment, 1}, of_segment,
                              shape.topk, expected, nullptr);
    ASSERT_EQ(selection.entries, expected.entries)
        << rows << " rows, " << heads << " heads, the best " << shape.topk;
  }
}

TEST_P(OperationsTest, ExpertsOfEveryFormat) {
  const int64_t d = 256, f = 128, count = 5, k = 2;
  for (const NumberFormat format :
       {NumberFormat::kE2m1, NumberFormat::kE4m3, NumberFormat::kBf16}) {
    const ScaleFormat scales =
        format == NumberFormat::kBf16 ? ScaleFormat::kNone : ScaleFormat::kE8m0;
    std::vector<StoredMatrix> weights;
    for (int64_t e = 0; e <= count; ++e) {
      const bool shared = e == count;
      const NumberFormat own =
          shared && format == NumberFormat::kE2m1 ? NumberFormat::kE4m3 : format;
      weights.emplace_back(source_, own, scales, f, d);
      weights.emplace_back(source_, own, scales, d, f);
      weights.emplace_back(source_, own, scales, f, d);
    }
    std::vector<ExpertMatrices> experts;
    for (size_t e = 0; e <= count; ++e) {
      experts.push_back(
          {&weights[3 * e].get(), &weights[3 * e + 1].get(), &weights[3 * e + 2].get()});
    }
    const ExpertMatrices shared = experts.back();
    experts.pop_back();
    for (const int64_t tokens : {1, 4, 50}) {
      Routing routing;
      routing.experts_per_token = k;
      for (int64_t i = 0; i < tokens; ++i) {
        const auto first = static_cast<int32_t>(source_.Integer(count));
        routing.experts.insert(routing.experts.end(),
                               {first, (first + 1) % static_cast<int32_t>(count)});
        routing.weights.insert(routing.weights.end(), {0.75f, 0.6f});
      }
      const Tensor x = source_.Numbers({tokens, d});
      Tensor y, expected;
      ResidentExperts resident(experts);
      reference_->Experts(x, routing, resident, shared, 10, expected);
      cpu_->Experts(x, routing, resident, shared, 10, y);
      ExpectSame(y, expected, std::to_string(tokens) + " tokens");
      LateExperts late(experts);
      cpu_->Experts(x, routing, late, shared, 10, y);
      ExpectSame(y, expected, std::to_string(tokens) + " tokens, experts come late");
      EXPECT_EQ(late.held(), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OperationsTest, ::testing::ValuesIn(Cases()), [](const auto& test) {
  return test.param.kernels + "_" + std::to_string(test.param.threads) + "_threads_" +
         (test.param.numerics == Numerics::kOfficial ? "official" : "fp32");
});

}  // namespace
}  // namespace toaster
