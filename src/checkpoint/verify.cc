#include "checkpoint/verify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_set>

#include "base/printable.h"
#include "checkpoint/load_weights.h"
#include "tensor/number_formats.h"

namespace toaster {
namespace {

constexpr int64_t kPiece = 4 << 20;

// What can be wrong with the numbers of a tensor.
enum class Content { kAnything, kE4m3, kBf16, kF32, kE8m0Scales, kF32Scales };

struct Findings {
  int64_t bad = 0;
  int64_t first = -1;  // number of the first bad element
};

template <typename T, typename IsBad>
Findings FindBad(const uint8_t* data, int64_t bytes, IsBad is_bad) {
  Findings findings;
  const int64_t count = bytes / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count; ++i) {
    findings.bad += is_bad(LoadUnaligned<T>(data + i * static_cast<int64_t>(sizeof(T)))) ? 1 : 0;
  }
  for (int64_t i = 0; findings.bad > 0 && findings.first < 0; ++i) {
    if (is_bad(LoadUnaligned<T>(data + i * static_cast<int64_t>(sizeof(T))))) findings.first = i;
  }
  return findings;
}

Findings Examine(Content content, const uint8_t* data, int64_t bytes) {
  switch (content) {
    case Content::kAnything:
      break;
    case Content::kE4m3:
      return FindBad<uint8_t>(data, bytes, [](uint8_t code) { return (code & 0x7F) == 0x7F; });
    case Content::kBf16:
      return FindBad<uint16_t>(data, bytes,
                               [](uint16_t bits) { return (bits & 0x7F80) == 0x7F80; });
    case Content::kF32:
      return FindBad<uint32_t>(data, bytes,
                               [](uint32_t bits) { return (bits & 0x7F800000) == 0x7F800000; });
    case Content::kE8m0Scales:
      return FindBad<uint8_t>(data, bytes, [](uint8_t code) { return code == 255; });
    case Content::kF32Scales:
      return FindBad<float>(data, bytes, [](float scale) { return !IsScale(scale); });
  }
  return {};
}

const char* FaultOf(Content content) {
  return content == Content::kE8m0Scales || content == Content::kF32Scales
             ? "scales that are no powers of two"
             : "numbers that are NaN or infinite";
}

Content ContentOf(const StoredTensor& tensor, const std::unordered_set<std::string>& scales) {
  switch (tensor.type) {
    case StoredType::kF8E4m3:
      return Content::kE4m3;
    case StoredType::kBf16:
      return Content::kBf16;
    case StoredType::kF8E8m0:
      return Content::kE8m0Scales;
    case StoredType::kF32:
      return scales.contains(tensor.name) ? Content::kF32Scales : Content::kF32;
    default:
      return Content::kAnything;
  }
}

// An open file, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : value_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  /// Fills `out` from `offset`; what went wrong, if anything did.
  std::optional<std::string> Read(std::span<uint8_t> out, int64_t offset) const {
    if (value_ < 0) return "cannot open";
    while (!out.empty()) {
      const ssize_t count = pread(value_, out.data(), out.size(), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return count < 0 ? std::strerror(errno) : "unexpected end";
      out = out.subspan(static_cast<size_t>(count));
      offset += count;
    }
    return std::nullopt;
  }

 private:
  int value_;
};

struct Job {
  Checkpoint::Place place;
  Content content = Content::kAnything;
  const Descriptor* file = nullptr;
  Findings findings;
  std::string failure;  // of reading
};

// Reads all tensors and lists what is wrong with their numbers.
class DataPass {
 public:
  explicit DataPass(const LoadedModel& model) {
    std::unordered_set<std::string> scales;
    for (const TensorSpec& spec : ListTensors(model.config)) {
      if (spec.role == TensorRole::kLinear || spec.role == TensorRole::kExpertLinear) {
        scales.insert(ScaleName(spec.name));
      }
    }
    for (const SafetensorsFile& shard : model.checkpoint.shards()) {
      const auto file = files_.try_emplace(shard.origin(), shard.origin()).first;
      const size_t first = jobs_.size();
      for (const StoredTensor& tensor : shard.tensors()) {
        jobs_.push_back({{&tensor, &shard}, ContentOf(tensor, scales), &file->second, {}, {}});
        total_ += tensor.bytes;
      }
      // In the order of the disk.
      std::sort(jobs_.begin() + static_cast<int64_t>(first), jobs_.end(),
                [](const Job& x, const Job& y) {
                  return x.place.tensor->offset < y.place.tensor->offset;
                });
    }
  }

  int64_t total() const { return total_; }

  void Run(ThreadPool& pool, const VerifyProgress& progress, DefectList& defects) {
    struct Piece {
      size_t job;
      int64_t offset;
    };
    std::vector<Piece> pieces;
    for (size_t job = 0; job < jobs_.size(); ++job) {
      for (int64_t at = 0; at < jobs_[job].place.tensor->bytes; at += kPiece) {
        pieces.push_back({job, at});
      }
    }
    std::vector<std::vector<uint8_t>> buffers(static_cast<size_t>(pool.threads()));
    pool.ParallelFor(static_cast<int64_t>(pieces.size()), 1,
                     [&](int64_t begin, int64_t end, int thread) {
                       std::vector<uint8_t>& buffer = buffers[static_cast<size_t>(thread)];
                       buffer.resize(kPiece);
                       for (int64_t i = begin; i < end; ++i) {
                         const Piece& piece = pieces[static_cast<size_t>(i)];
                         ReadPiece(jobs_[piece.job], piece.offset, buffer, progress);
                       }
                     });
    for (const Job& job : jobs_) Report(job, defects);
  }

 private:
  void ReadPiece(Job& job, int64_t offset, std::span<uint8_t> buffer,
                 const VerifyProgress& progress) {
    const StoredTensor& tensor = *job.place.tensor;
    const int64_t bytes = std::min(kPiece, tensor.bytes - offset);
    const std::optional<std::string> failure =
        job.file->Read(buffer.first(static_cast<size_t>(bytes)), tensor.offset + offset);
    Findings findings;
    if (!failure) findings = Examine(job.content, buffer.data(), bytes);
    const std::lock_guard lock(mutex_);
    if (failure) job.failure = *failure;
    if (findings.bad > 0) {
      const int64_t first = findings.first + offset / StoredTypeSize(tensor.type);
      job.findings.first = job.findings.bad == 0 ? first : std::min(job.findings.first, first);
      job.findings.bad += findings.bad;
    }
    read_ += bytes;
    if (progress) progress(read_, total_);
  }

  static void Report(const Job& job, DefectList& defects) {
    const std::string name = fmt::format("{}: tensor '{}'", job.place.shard->origin(),
                                         Printable(job.place.tensor->name));
    if (!job.failure.empty()) {
      defects.push_back(fmt::format(
          "{} cannot be read: {}; check the disk and download the file again", name, job.failure));
    }
    if (job.findings.bad > 0) {
      defects.push_back(
          fmt::format("{} has {} {}, the first at element {}; download the file again", name,
                      job.findings.bad, FaultOf(job.content), job.findings.first));
    }
  }

  std::map<std::string, Descriptor> files_;
  std::vector<Job> jobs_;
  int64_t total_ = 0;
  int64_t read_ = 0;
  std::mutex mutex_;
};

}  // namespace

VerifyReport VerifyCheckpoint(const std::filesystem::path& directory, ThreadPool& pool,
                              const VerifyProgress& progress) {
  VerifyReport report;
  try {
    Checkpoint checkpoint = Checkpoint::Open(directory, &report.defects);
    if (checkpoint.shards().empty()) return report;
    const LoadedModel model = LoadModel(std::move(checkpoint), &report.defects);
    report.notes = model.notes;
    for (const std::string& name : model.unused) {
      if (name.starts_with("mtp.")) continue;  // drafts of another kind; noted
      report.defects.push_back(
          fmt::format("{}: tensor '{}' is no part of the model; take the config.json that belongs "
                      "to the checkpoint",
                      model.checkpoint.ExpectedFile(name), Printable(name)));
    }
    DataPass pass(model);
    pass.Run(pool, progress, report.defects);
    report.files = static_cast<int64_t>(model.checkpoint.shards().size());
    report.tensors = static_cast<int64_t>(model.checkpoint.size());
    report.bytes = pass.total();
  } catch (const Error& error) {
    report.defects.emplace_back(error.what());
  }
  return report;
}

}  // namespace toaster
