#include "backend/profiling_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

namespace toaster {

namespace {

double Bytes(const Matrix& matrix) {
  return static_cast<double>(matrix.data_bytes() + matrix.scale_bytes());
}

// Two operations for every weight and row.
double Flops(const Matrix& matrix, int64_t rows) {
  return 2.0 * static_cast<double>(matrix.rows * matrix.columns * rows);
}

double ExpertBytes(const ExpertMatrices& expert) {
  return Bytes(*expert.w1) + Bytes(*expert.w2) + Bytes(*expert.w3);
}

double ExpertFlops(const ExpertMatrices& expert, int64_t rows) {
  return Flops(*expert.w1, rows) + Flops(*expert.w2, rows) + Flops(*expert.w3, rows);
}

// Hands on what another source has, and counts the work that each expert is.
class CountingSource : public ExpertSource {
 public:
  CountingSource(ExpertSource& inner, const Routing& routing) : inner_(inner) {
    for (const int32_t expert : routing.experts) ++rows_[expert];
  }
  int64_t Acquire(std::span<int32_t> wanted, bool wait) override {
    return inner_.Acquire(wanted, wait);
  }
  ExpertMatrices Matrices(int32_t expert) const override { return inner_.Matrices(expert); }
  void Release(std::span<const int32_t> experts) override {
    for (const int32_t expert : experts) {
      const ExpertMatrices matrices = inner_.Matrices(expert);
      work +=
          {.bytes = ExpertBytes(matrices), .bf16_flops = ExpertFlops(matrices, rows_.at(expert))};
    }
    inner_.Release(experts);
  }

  Work work;

 private:
  ExpertSource& inner_;
  std::map<int32_t, int64_t> rows_;
};

Work HyperWork(const HyperParameters& parameters, int64_t rows) {
  return {.bytes = Bytes(parameters.fn), .float_flops = Flops(parameters.fn, rows)};
}

}  // namespace

ProfilingBackend::ProfilingBackend(std::unique_ptr<Backend> inner, Profile& profile)
    : Backend(inner->numerics()), inner_(std::move(inner)), profile_(profile) {}

template <typename Run>
void ProfilingBackend::Measure(const std::string& name, const Work& work, const Run& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  profile_.Add(name, seconds.count(), work);
}

void ProfilingBackend::Embed(std::span<const int32_t> tokens, const Matrix& embed, int64_t copies,
                             Tensor& output) {
  const Work work{.bytes =
                      static_cast<double>(tokens.size()) * static_cast<double>(embed.row_bytes())};
  Measure("embed", work, [&] { inner_->Embed(tokens, embed, copies, output); });
}

void ProfilingBackend::HyperPre(const Tensor& streams, const HyperParameters& parameters,
                                Tensor& input, Tensor& post, Tensor& comb) {
  Measure("hyper-connection read", HyperWork(parameters, streams.rows()),
          [&] { inner_->HyperPre(streams, parameters, input, post, comb); });
}

void ProfilingBackend::HyperPost(const Tensor& y, const Tensor& post, const Tensor& comb,
                                 const Tensor& streams, Tensor& output) {
  Measure("hyper-connection write", {}, [&] { inner_->HyperPost(y, post, comb, streams, output); });
}

void ProfilingBackend::HyperHead(const Tensor& streams, const HyperParameters& parameters,
                                 Tensor& output) {
  Measure("hyper-connection head", HyperWork(parameters, streams.rows()),
          [&] { inner_->HyperHead(streams, parameters, output); });
}

void ProfilingBackend::RmsNorm(const Tensor& x, const Vector& weight, float eps, Tensor& output) {
  Measure("norm", {}, [&] { inner_->RmsNorm(x, weight, eps, output); });
}

void ProfilingBackend::Linear(const Tensor& x, std::span<const Projection> projections) {
  Work work;
  int64_t outputs = 0;
  for (const Projection& projection : projections) {
    work += {.bytes = Bytes(*projection.weight), .bf16_flops = Flops(*projection.weight, x.rows())};
    outputs += projection.weight->rows;
  }
  Measure(fmt::format("linear {} to {}", x.width(), outputs), work,
          [&] { inner_->Linear(x, projections); });
}

void ProfilingBackend::GroupedLinear(const Tensor& x, const Matrix& weight, int64_t groups,
                                     Tensor& output) {
  const Work work{.bytes = Bytes(weight), .bf16_flops = Flops(weight, x.rows())};
  Measure(fmt::format("grouped linear {} to {}", x.width(), weight.rows), work,
          [&] { inner_->GroupedLinear(x, weight, groups, output); });
}

void ProfilingBackend::PrepareQueries(Tensor& q, float eps, const Rotation& rotation) {
  Measure("prepare queries", {}, [&] { inner_->PrepareQueries(q, eps, rotation); });
}

void ProfilingBackend::StoreEntries(const Tensor& kv, EntryShape shape, const Rotation& rotation,
                                    uint8_t* entries) {
  Measure("store entries", {}, [&] { inner_->StoreEntries(kv, shape, rotation, entries); });
}

void ProfilingBackend::Compress(const Tensor& values, const Tensor& scores,
                                const CompressParameters& parameters,
                                std::span<const Segment> segments,
                                std::span<const CompressTarget> targets) {
  Measure(parameters.indexer_key ? "compress keys" : "compress", {},
          [&] { inner_->Compress(values, scores, parameters, segments, targets); });
}

void ProfilingBackend::SelectEntries(Tensor& q, Tensor& weights, const Rotation& rotation,
                                     std::span<const Segment> segments,
                                     std::span<const PagedRows* const> keys, int64_t topk,
                                     Selection& selection, Tensor* scores) {
  constexpr int64_t kRatio = 4;
  const double head_ops = 2.0 * static_cast<double>(q.extent(1) * q.extent(2));
  Work work;
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    if ((segment.start + segment.rows) / kRatio <= topk) continue;
    work.bytes += static_cast<double>(keys[s]->size() * keys[s]->row_bytes());
    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t visible = (segment.start + i + 1) / kRatio;
      if (visible > topk) work.int8_ops += head_ops * static_cast<double>(visible);
    }
  }
  Measure("select entries", work, [&] {
    inner_->SelectEntries(q, weights, rotation, segments, keys, topk, selection, scores);
  });
}

void ProfilingBackend::Attend(const Tensor& q, const AttendParameters& parameters,
                              const Rotation& rotation, std::span<const Segment> segments,
                              std::span<const AttendSource> sources, Tensor& output) {
  // Scores and values: two products of every head with every visible entry.
  const double entry_flops = 4.0 * static_cast<double>(q.extent(1) * q.extent(2));
  const auto row_bytes = static_cast<double>(EntryRowBytes(parameters.entry));
  Work work;
  for (const Segment& segment : segments) {
    double seen = 0, compressed = 0, most = 0;
    for (int64_t i = 0; i < segment.rows; ++i) {
      const int64_t position = segment.start + i;
      seen += static_cast<double>(std::min(position + 1, parameters.window));
      if (parameters.ratio == 0) continue;
      const int64_t complete = (position + 1) / parameters.ratio;
      most = static_cast<double>(complete);
      compressed +=
          parameters.selection.all
              ? most
              : static_cast<double>(
                    parameters.selection.entries[static_cast<size_t>(segment.first_row + i)]
                        .size());
    }
    const int64_t end = segment.start + segment.rows;
    const int64_t first = std::max<int64_t>(0, segment.start - parameters.window + 1);
    work.bytes += row_bytes * (static_cast<double>(end - first) + std::min(compressed, most));
    work.bf16_flops += entry_flops * (seen + compressed);
  }
  Measure(fmt::format("attend, ratio {}", parameters.ratio), work,
          [&] { inner_->Attend(q, parameters, rotation, segments, sources, output); });
}

void ProfilingBackend::Route(const Tensor& x, const RouteParameters& parameters, Routing& routing) {
  const Work work{.bytes = Bytes(parameters.gate), .bf16_flops = Flops(parameters.gate, x.rows())};
  Measure("route", work, [&] { inner_->Route(x, parameters, routing); });
}

void ProfilingBackend::Experts(const Tensor& x, const Routing& routing, ExpertSource& experts,
                               const ExpertMatrices& shared, float swiglu_limit, Tensor& output) {
  CountingSource counted(experts, routing);
  counted.work = {.bytes = ExpertBytes(shared), .bf16_flops = ExpertFlops(shared, x.rows())};
  Measure("experts", counted.work,
          [&] { inner_->Experts(x, routing, counted, shared, swiglu_limit, output); });
}

void ProfilingBackend::AddToStreams(const Tensor& e, const Tensor& h, Tensor& streams) {
  Measure("add to streams", {}, [&] { inner_->AddToStreams(e, h, streams); });
}

}  // namespace toaster
