// The backward of every operation against recorded gradients.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "backend/hyper_coefficients.h"
#include "backend/registry.h"
#include "backend/row_gradients.h"
#include "base/flush_denormals.h"
#include "tensor/quantise_weights.h"
#include "tensor/rotate.h"
#include "training_recording.h"

namespace toaster {
namespace {

constexpr float kEps = 1e-6f;

Matrix ViewMatrix(const Tensor& tensor) {
  Matrix matrix;
  matrix.format = NumberFormat::kFloat32;
  matrix.rows = tensor.rows();
  matrix.columns = tensor.width();
  matrix.data = reinterpret_cast<const uint8_t*>(tensor.data());
  return matrix;
}

Vector ViewVector(const Tensor& tensor) {
  return {NumberFormat::kFloat32, tensor.size(), reinterpret_cast<const uint8_t*>(tensor.data())};
}

// A gradient of the shape of `like`, zero.
Tensor ZeroLike(const Tensor& like) {
  Tensor tensor;
  tensor.CopyFrom(like);
  tensor.Fill(0);
  return tensor;
}

Rotation NoRotation(int64_t rows) {
  Rotation rotation;
  rotation.cosine.Reshape({rows, 0});
  rotation.sine.Reshape({rows, 0});
  return rotation;
}

class TrainingOperationsTest : public ::testing::Test {
 protected:
  TrainingOperationsTest() : recording_("ops") { UseNumerics(Numerics::kFloat32); }

  void UseNumerics(Numerics numerics) {
    const BackendOptions options{"reference", "", 0, numerics};
    forward_ = CreateBackend(options);
    backward_ = CreateBackward(options);
  }
  Tensor In(const std::string& name) const { return recording_.Floats(name); }
  void Expect(const std::string& name, const Tensor& got) {
    std::string line;
    EXPECT_EQ(recording_.Judge(name, got.values(), false, &line), Verdict::kTight) << line;
  }
  void Expect(const std::string& name, double got) {
    Tensor one({1});
    one.data()[0] = static_cast<float>(got);
    Expect(name, one);
  }

  ScopedFlushDenormals flush_;
  TrainingRecording recording_;
  std::unique_ptr<Backend> forward_;
  std::unique_ptr<BackwardBackend> backward_;
};

TEST_F(TrainingOperationsTest, RmsNorm) {
  const Tensor w = In("rms_norm.w");
  Tensor grad_w = ZeroLike(w), grad_x;
  backward_->RmsNorm(In("rms_norm.x"), ViewVector(w), kEps, In("rms_norm.grad.y"), grad_w.data(),
                     grad_x);
  Expect("rms_norm.grad.x", grad_x);
  Expect("rms_norm.grad.w", grad_w);
}

TEST_F(TrainingOperationsTest, HeadNorm) {
  Tensor grad = In("head_norm.grad.y");
  const Tensor x = In("head_norm.x");
  backward_->PrepareQueries(x, kEps, NoRotation(x.rows()), grad);
  Expect("head_norm.grad.x", grad);
}

TEST_F(TrainingOperationsTest, Rotations) {
  for (const std::string kind : {"plain", "yarn"}) {
    const std::vector<int32_t> positions = recording_.Integers("rope_" + kind + ".pos");
    const Tensor frequencies = In("rope_" + kind + ".freq");
    const int64_t rows = frequencies.size() == 0 ? 0 : static_cast<int64_t>(positions.size());
    Tensor turned = In("rope_" + kind + ".grad.y");
    const int64_t heads = turned.extent(1);
    Rotation rotation;
    rotation.cosine.Reshape({rows * heads, frequencies.size()});
    rotation.sine.Reshape({rows * heads, frequencies.size()});
    for (int64_t i = 0; i < rows * heads; ++i) {
      RotationAngles(positions[static_cast<size_t>(i / heads)], frequencies.values(),
                     rotation.cosine.Row(i), rotation.sine.Row(i));
    }
    Tensor flat({rows * heads, turned.extent(2)});
    std::copy_n(turned.data(), turned.size(), flat.data());
    backward_->StoreEntries(rotation, flat);
    Expect("rope_" + kind + ".grad.x", flat);
  }
}

TEST_F(TrainingOperationsTest, Sinkhorn) {
  for (const int rounds : {1, 2, 20}) {
    const std::string p = "sinkhorn_" + std::to_string(rounds) + ".";
    const Tensor a = In(p + "a"), grad = In(p + "grad.m");
    Tensor grad_a = ZeroLike(a);
    SinkhornBackward(a.data(), a.rows(), a.extent(1), rounds, kEps, grad.data(), grad_a.data());
    Expect(p + "grad.a", grad_a);
  }
}

TEST_F(TrainingOperationsTest, HyperConnections) {
  for (const std::string p : {"hc_pre.", "hc_head."}) {
    const Tensor x = In(p + "x"), fn = In(p + "fn"), base = In(p + "base"), scale = In(p + "scale");
    const Matrix fn_view = ViewMatrix(fn);
    const Vector base_view = ViewVector(base), scale_view = ViewVector(scale);
    const HyperParameters parameters{fn_view, base_view, scale_view, 20, kEps, kEps};
    Tensor grad_fn = ZeroLike(fn), grad_base = ZeroLike(base), grad_scale = ZeroLike(scale),
           grad_x = ZeroLike(x);
    const HyperGradients gradients{grad_fn.data(), grad_base.data(), grad_scale.data()};
    if (p == "hc_pre.") {
      backward_->HyperPre(x, parameters, In(p + "grad.y"), In(p + "grad.post"), In(p + "grad.comb"),
                          gradients, grad_x);
    } else {
      backward_->HyperHead(x, parameters, In(p + "grad.y"), gradients, grad_x);
    }
    Expect(p + "grad.x", grad_x);
    Expect(p + "grad.fn", grad_fn);
    Expect(p + "grad.base", grad_base);
    Expect(p + "grad.scale", grad_scale);
  }
  Tensor grad_x = In("hc_post.grad.out"), grad_y, grad_post, grad_comb;
  backward_->HyperPost(In("hc_post.y"), In("hc_post.post"), In("hc_post.comb"), In("hc_post.x"),
                       grad_x, grad_y, grad_post, grad_comb);
  Expect("hc_post.grad.x", grad_x);
  Expect("hc_post.grad.y", grad_y);
  Expect("hc_post.grad.post", grad_post);
  Expect("hc_post.grad.comb", grad_comb);
}

TEST_F(TrainingOperationsTest, Compressors) {
  for (const int64_t ratio : {4, 8, 128}) {
    const std::string p = "compress_" + std::to_string(ratio) + ".";
    const Tensor x = In(p + "x"), wkv = In(p + "wkv"), wgate = In(p + "wgate"), ape = In(p + "ape"),
                 norm = In(p + "norm"), frequencies = In(p + "freq");
    const Matrix kv_view = ViewMatrix(wkv), gate_view = ViewMatrix(wgate),
                 ape_view = ViewMatrix(ape);
    const Vector norm_view = ViewVector(norm);
    const CompressParameters parameters{ratio, ape_view, norm_view, kEps, frequencies.values(),
                                        false};
    Tensor values, scores, grad_values, grad_scores;
    forward_->Linear(
        x, std::vector<Projection>{{&kv_view, &values, false}, {&gate_view, &scores, false}});
    std::vector<Tensor> grad_entries;
    grad_entries.push_back(In(p + "grad.entries"));
    Tensor grad_x = ZeroLike(x), grad_wkv = ZeroLike(wkv), grad_wgate = ZeroLike(wgate),
           grad_ape = ZeroLike(ape), grad_norm = ZeroLike(norm);
    const Segment segment{0, x.rows(), 0};
    backward_->Compress(values, scores, parameters, {&segment, 1}, grad_entries, grad_ape.data(),
                        grad_norm.data(), grad_values, grad_scores);
    backward_->Linear(
        x,
        std::vector<ProjectionGradient>{{&kv_view, &grad_values, grad_wkv.data()},
                                        {&gate_view, &grad_scores, grad_wgate.data()}},
        &grad_x);
    Expect(p + "grad.x", grad_x);
    Expect(p + "grad.wkv", grad_wkv);
    Expect(p + "grad.wgate", grad_wgate);
    Expect(p + "grad.ape", grad_ape);
    Expect(p + "grad.norm", grad_norm);
  }
}

PagedRows FloatRows(const Tensor& tensor) {
  PagedRows rows(4 * tensor.width(), 4);
  for (int64_t i = 0; i < tensor.rows(); ++i)
    std::memcpy(rows.Append(), tensor.Row(i), static_cast<size_t>(4 * tensor.width()));
  return rows;
}

// Row t's list of columns that are not 0.
std::vector<std::vector<int32_t>> Lists(const std::vector<int32_t>& keep, int64_t rows) {
  std::vector<std::vector<int32_t>> lists(static_cast<size_t>(rows));
  const int64_t columns = static_cast<int64_t>(keep.size()) / rows;
  for (size_t i = 0; i < keep.size(); ++i) {
    if (keep[i] != 0)
      lists[i / static_cast<size_t>(columns)].push_back(static_cast<int32_t>(i) %
                                                        static_cast<int32_t>(columns));
  }
  return lists;
}

TEST_F(TrainingOperationsTest, Attention) {
  for (const std::string kind : {"selected", "all_visible", "window"}) {
    const std::string p = "attention_" + kind + ".";
    const bool compressed = kind != "window";
    const Tensor q = In(p + "q"), kv = In(p + "kv"), sink = In(p + "sink");
    const Vector sink_view = ViewVector(sink);
    const Tensor entries = compressed ? In(p + "entries") : Tensor({0, kv.width()});
    const PagedRows rows = FloatRows(entries);
    Selection selection;
    selection.all = kind == "all_visible";
    if (kind == "selected") selection.entries = Lists(recording_.Integers(p + "keep"), q.rows());
    const AttendParameters parameters{
        compressed ? 6 : 8, compressed ? 4 : 0, {0, kv.width()}, sink_view, selection};
    const Segment segment{0, q.rows(), 0};
    const AttendSource source{nullptr, reinterpret_cast<const uint8_t*>(kv.data()), &rows};
    Tensor grad_q, grad_kv, grad_sink = ZeroLike(sink);
    std::vector<Tensor> grad_entries;
    EntryProbabilities probabilities;
    backward_->Attend(q, parameters, NoRotation(q.rows()), {&segment, 1}, {&source, 1},
                      In(p + "grad.o"), grad_q, grad_kv, grad_entries, grad_sink.data(),
                      &probabilities);
    Expect(p + "grad.q", grad_q);
    Expect(p + "grad.kv", grad_kv);
    Expect(p + "grad.sink", grad_sink);
    if (!compressed) continue;
    Expect(p + "grad.entries", grad_entries[0]);
    const Tensor probs = In(p + "probs");  // [rows, heads, entries]
    const auto keep = Lists(recording_.Integers(p + "keep"), q.rows());
    for (size_t t = 0; t < keep.size(); ++t) {
      ASSERT_EQ(probabilities[t].size(), keep[t].size());
      for (size_t e = 0; e < keep[t].size(); ++e) {
        float sum = 0;
        for (int64_t h = 0; h < probs.extent(1); ++h)
          sum += probs.Row(static_cast<int64_t>(t))[h * probs.extent(2) + keep[t][e]];
        EXPECT_NEAR(probabilities[t][e], sum, 1e-5f);
      }
    }
  }
}

TEST_F(TrainingOperationsTest, GroupedOutput) {
  const std::string p = "grouped_output.";
  const Tensor wo_a = In(p + "wo_a"), wo_b = In(p + "wo_b");
  const Matrix a_view = ViewMatrix(wo_a), b_view = ViewMatrix(wo_b);
  Tensor o = In(p + "o");
  o.Reshape({o.extent(0), o.extent(1) * o.extent(2)});
  Tensor z, grad_z, grad_o, grad_a = ZeroLike(wo_a), grad_b = ZeroLike(wo_b);
  forward_->GroupedLinear(o, a_view, 2, z);
  grad_z = ZeroLike(z);
  const Tensor grad_out = In(p + "grad.out");
  backward_->Linear(z, std::vector<ProjectionGradient>{{&b_view, &grad_out, grad_b.data()}},
                    &grad_z);
  backward_->GroupedLinear(o, a_view, 2, grad_z, grad_a.data(), grad_o);
  Expect(p + "grad.o", grad_o);
  Expect(p + "grad.wo_a", grad_a);
  Expect(p + "grad.wo_b", grad_b);
}

TEST_F(TrainingOperationsTest, Routers) {
  for (const std::string p : {"router.", "router_hash."}) {
    const bool hashed = p == "router_hash.";
    const Tensor x = In(p + "x"), w = In(p + "w");
    const Tensor bias = hashed ? Tensor({0}) : In(p + "bias");
    const Matrix gate = ViewMatrix(w);
    const Vector bias_view = ViewVector(bias);
    std::vector<int32_t> given;
    if (hashed) given = recording_.Integers(p + "given");
    const RouteParameters parameters{gate, hashed ? nullptr : &bias_view, given, 3, 2.5f};
    Routing routing;
    forward_->Route(x, parameters, routing);
    const std::vector<Segment> segments = {{0, 7, 0}, {7, 4, 0}};
    Tensor grad_x = ZeroLike(x), grad_w = ZeroLike(w);
    BalanceLoss balance;
    balance.weight = hashed ? 0 : 1;
    backward_->Route(x, parameters, routing, segments, In(p + "grad.weights").values(), balance,
                     grad_w.data(), grad_x);
    Expect(p + "grad.x", grad_x);
    Expect(p + "grad.w", grad_w);
    if (!hashed) Expect(p + "balance", balance.value);
  }
}

TEST_F(TrainingOperationsTest, Swiglu) {
  for (const std::string p : {"swiglu.", "swiglu_shared."}) {
    const bool weighted = p == "swiglu.";
    const Tensor gate = In(p + "gate"), up = In(p + "up"), grad = In(p + "grad.y");
    const Tensor weight = weighted ? In(p + "weight") : Tensor({0});
    Tensor grad_gate = ZeroLike(gate), grad_up = ZeroLike(up), grad_weight({gate.rows(), 1});
    for (int64_t row = 0; row < gate.rows(); ++row) {
      grad_weight.data()[row] =
          SwigluBackward(gate.Row(row), up.Row(row), gate.width(), weighted ? 1.5f : 10.0f,
                         weighted ? weight.data()[row] : 1.0f, grad.Row(row), grad_gate.Row(row),
                         grad_up.Row(row));
    }
    Expect(p + "grad.gate", grad_gate);
    Expect(p + "grad.up", grad_up);
    if (weighted) Expect(p + "grad.weight", grad_weight);
  }
}

TEST_F(TrainingOperationsTest, IndexerLoss) {
  for (const std::string p : {"index_kl_sparse.", "index_kl_dense."}) {
    const Tensor q = In(p + "q"), keys = In(p + "keys"), w = In(p + "w"), probs = In(p + "probs");
    const PagedRows rows = FloatRows(keys);
    Selection selection;
    selection.all = false;
    selection.entries = Lists(recording_.Integers(p + "keep"), q.rows());
    EntryProbabilities probabilities(selection.entries.size());
    for (size_t t = 0; t < selection.entries.size(); ++t) {
      for (const int32_t e : selection.entries[t]) {
        float sum = 0;
        for (int64_t h = 0; h < probs.extent(1); ++h)
          sum += probs.Row(static_cast<int64_t>(t))[h * probs.extent(2) + e];
        probabilities[t].push_back(sum);
      }
    }
    const Segment segment{0, q.rows(), 0};
    const PagedRows* source = &rows;
    IndexLoss loss;
    loss.weight = 1;
    Tensor grad_q, grad_w;
    std::vector<Tensor> grad_keys;
    backward_->SelectEntries(q, w, NoRotation(q.rows()), {&segment, 1}, {&source, 1}, selection,
                             probabilities, loss, grad_q, grad_w, grad_keys);
    Expect(p + "loss", loss.value);
    Expect(p + "grad.keys", grad_keys[0]);
    // The operation's inputs stand before the Hadamard rotation and the scaling of the weights.
    for (int64_t i = 0; i < q.rows() * q.extent(1); ++i)
      HadamardTransform(grad_q.data() + i * q.extent(2), q.extent(2));
    const float scale = IndexWeightScale(q.extent(1), q.extent(2));
    for (int64_t i = 0; i < grad_w.size(); ++i) grad_w.data()[i] /= scale;
    Expect(p + "grad.q", grad_q);
    Expect(p + "grad.w", grad_w);
  }
}

TEST_F(TrainingOperationsTest, CrossEntropy) {
  const std::string p = "cross_entropy.";
  const Tensor y = In(p + "y"), head = In(p + "head");
  const std::vector<int32_t> targets = recording_.Integers(p + "targets");
  const auto count = static_cast<float>(
      std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; }));
  Tensor grad_head = ZeroLike(head), grad_y;
  const double loss =
      backward_->CrossEntropy(y, ViewMatrix(head), targets, 1 / count, grad_head.data(), grad_y);
  Expect(p + "loss", loss / count);
  Expect(p + "grad.head", grad_head);
  Expect(p + "grad.y", grad_y);
}

// A master weight in a stored format.
struct StoredWeight {
  StoredWeight(const Tensor& master, NumberFormat format)
      : codes(static_cast<size_t>(master.size())), scales(codes.size()) {
    if (format == NumberFormat::kFloat32) {
      matrix = ViewMatrix(master);
      return;
    }
    (format == NumberFormat::kE4m3 ? QuantiseTilesE4m3 : QuantiseRowsE2m1)(
        master.data(), master.rows(), master.width(), codes.data(), scales.data());
    matrix = {format,         ScaleFormat::kE8m0, master.rows(),
              master.width(), codes.data(),       scales.data()};
  }
  std::vector<uint8_t> codes, scales;
  Matrix matrix;
};

TEST_F(TrainingOperationsTest, QuantisedLinear) {
  UseNumerics(Numerics::kQuantisedFloat32);
  for (const std::string p : {"fp8_linear.", "fp4_linear."}) {
    const Tensor x = In(p + "x"), w = In(p + "w"), grad_y = In(p + "grad.y");
    const StoredWeight stored(w, p == "fp8_linear." ? NumberFormat::kE4m3 : NumberFormat::kE2m1);
    Tensor rounded = ZeroLike(w), y, grad_x = ZeroLike(x), grad_w = ZeroLike(w);
    for (int64_t r = 0; r < w.rows(); ++r) ExpandRow(stored.matrix, r, rounded.Row(r));
    Expect(p + "w_rounded", rounded);
    forward_->Linear(x, std::vector<Projection>{{&stored.matrix, &y}});
    Expect(p + "y", y);
    backward_->Linear(x, std::vector<ProjectionGradient>{{&stored.matrix, &grad_y, grad_w.data()}},
                      &grad_x);
    Expect(p + "grad.x", grad_x);
    Expect(p + "grad.w", grad_w);
  }
}

TEST_F(TrainingOperationsTest, Experts) {
  constexpr float kLimit = 2;
  for (const std::string p : {"expert.", "expert_qat."}) {
    const bool quantised = p == "expert_qat.";
    UseNumerics(quantised ? Numerics::kQuantisedFloat32 : Numerics::kFloat32);
    const NumberFormat format = quantised ? NumberFormat::kE2m1 : NumberFormat::kFloat32;
    const Tensor x = In(p + "x"), w1 = In(p + "w1"), w2 = In(p + "w2"), w3 = In(p + "w3"),
                 weight = In(p + "weight"), grad_y = In(p + "grad.y");
    const StoredWeight s1(w1, format), s2(w2, format), s3(w3, format);
    // The shared expert is all zero and so contributes nothing.
    const Tensor zero = ZeroLike(w1);
    const Matrix none = ViewMatrix(zero);
    const ExpertMatrices expert{&s1.matrix, &s2.matrix, &s3.matrix}, shared{&none, &none, &none};
    Routing routing;
    routing.experts_per_token = 1;
    routing.experts.assign(static_cast<size_t>(x.rows()), 0);
    routing.weights.assign(weight.data(), weight.data() + weight.size());
    Tensor y, grad_x, g1 = ZeroLike(w1), g2 = ZeroLike(w2), g3 = ZeroLike(w3),
                      unused = ZeroLike(w1);
    ResidentExperts experts({&expert, 1});
    forward_->Experts(x, routing, experts, shared, kLimit, y);
    Expect(p + "y", y);
    const ExpertGradients gradients{g1.data(), g2.data(), g3.data()},
        shared_gradients{unused.data(), unused.data(), unused.data()};
    std::vector<float> grad_weights;
    backward_->Experts(x, routing, {&expert, 1}, shared, kLimit, grad_y, {&gradients, 1},
                       shared_gradients, grad_x, grad_weights);
    Expect(p + "grad.x", grad_x);
    Expect(p + "grad.w1", g1);
    Expect(p + "grad.w2", g2);
    Expect(p + "grad.w3", g3);
    Tensor grad_weight({x.rows(), 1});
    std::copy(grad_weights.begin(), grad_weights.end(), grad_weight.data());
    Expect(p + "grad.weight", grad_weight);
  }
}

}  // namespace
}  // namespace toaster
