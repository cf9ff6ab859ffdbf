#include "engine/resident_weights.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"

namespace toaster {

namespace {

// A part of a weight that has its own place in a file, and the view of it.
struct Part {
  int file = 0;
  int64_t offset = 0, bytes = 0;
  const uint8_t** view = nullptr;
};

// Neighbours in a file, read together.
struct Run {
  DirectReader::Range range;
  size_t first = 0, count = 0;  // of the parts
};

// Tensors this close together are read in one go.
constexpr int64_t kGap = 64 << 10;

void AddPart(const Checkpoint& checkpoint, const std::string& name, const uint8_t*& view,
             std::vector<Part>& parts) {
  const Checkpoint::Place place = checkpoint.Find(name);
  CHECK(place.tensor != nullptr && place.tensor->data == view, "{}", name);
  parts.push_back({static_cast<int>(place.shard - checkpoint.shards().data()), place.tensor->offset,
                   place.tensor->bytes, &view});
}

std::vector<Part> FindParts(const Config& config, const Checkpoint& checkpoint,
                            ModelWeights& weights) {
  std::vector<Part> parts;
  VisitTensors(config, weights, [&](const TensorSpec& spec, auto& field) {
    if (spec.routed_expert || spec.name == "embed.weight") return;
    AddPart(checkpoint, spec.name, field.data, parts);
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(field)>, Matrix>) {
      if (field.quantised()) AddPart(checkpoint, ScaleName(spec.name), field.scales, parts);
    }
  });
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  });
  return parts;
}

std::vector<Run> FindRuns(const std::vector<Part>& parts) {
  std::vector<Run> runs;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    if (!runs.empty()) {
      Run& last = runs.back();
      if (last.range.file == part.file &&
          part.offset <= last.range.offset + last.range.bytes + kGap) {
        last.range.bytes = std::max(last.range.bytes, part.offset + part.bytes - last.range.offset);
        ++last.count;
        continue;
      }
    }
    runs.push_back({{part.file, part.offset, part.bytes, nullptr}, i, 1});
  }
  return runs;
}

int64_t BufferBytes(const std::vector<Run>& runs) {
  int64_t bytes = 0;
  for (const Run& run : runs) bytes += DirectReader::BufferBytes(run.range.offset, run.range.bytes);
  return bytes;
}

}  // namespace

int64_t ResidentWeights::BytesFor(const LoadedModel& model) {
  ModelWeights views = model.weights;
  return BufferBytes(FindRuns(FindParts(model.config, model.checkpoint, views)));
}

ResidentWeights::ResidentWeights(LoadedModel& model, const DirectReadOptions& reads,
                                 const ReadProgress& progress) {
  const std::vector<Part> parts = FindParts(model.config, model.checkpoint, model.weights);
  const std::vector<Run> runs = FindRuns(parts);
  const int64_t total = BufferBytes(runs);
  memory_ = ReadMemory(total);
  DirectReader reader(model.checkpoint.ShardPaths(), reads);
  std::byte* buffer = memory_.data();
  int64_t done = 0;
  for (const Run& run : runs) {
    DirectReader::Range range = run.range;
    range.buffer = buffer;
    reader.Read({range});
    const std::byte* begin = buffer + DirectReader::Shift(range.offset);
    for (size_t i = run.first; i < run.first + run.count; ++i) {
      *parts[i].view = reinterpret_cast<const uint8_t*>(begin + (parts[i].offset - range.offset));
    }
    const int64_t bytes = DirectReader::BufferBytes(range.offset, range.bytes);
    buffer += bytes;
    done += bytes;
    if (progress) progress(done, total);
  }
  for (const SafetensorsFile& shard : model.checkpoint.shards()) DropPages(shard.bytes());
}

}  // namespace toaster
