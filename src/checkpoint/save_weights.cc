#include "checkpoint/save_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/new_file.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

std::string IndexText(const std::vector<PlannedFile>& files, int64_t total) {
  nlohmann::json map = nlohmann::json::object();
  for (const PlannedFile& file : files) {
    for (const PlannedTensor& tensor : file.tensors) map[tensor.name] = file.name;
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                        {"weight_map", std::move(map)}};
  return index.dump(2) + "\n";
}

void CheckSpace(const fs::path& directory, int64_t needed) {
  std::error_code failure;
  const fs::space_info space = fs::space(directory, failure);
  if (failure || static_cast<uint64_t>(needed) <= space.available) return;
  throw Error(ErrorCode::kIo,
              fmt::format("{}: the checkpoint takes {:.1f} GB, but only {:.1f} GB are free; make "
                          "room or choose another place",
                          directory.string(), static_cast<double>(needed) / 1e9,
                          static_cast<double>(space.available) / 1e9));
}

struct Piece {
  const PlannedTensor* tensor;
  int64_t offset;  // in the tensor
  int64_t bytes;
  int64_t place;  // in the file
};

std::vector<Piece> CutIntoPieces(const std::vector<PlannedTensor>& tensors, int64_t place) {
  std::vector<Piece> pieces;
  for (const PlannedTensor& tensor : tensors) {
    const int64_t size = tensor.bytes();
    for (int64_t offset = 0; offset < size; offset += kSavePiece) {
      const int64_t bytes = std::min(kSavePiece, size - offset);
      pieces.push_back({&tensor, offset, bytes, place});
      place += bytes;
    }
  }
  return pieces;
}

}  // namespace

std::string SafetensorsHead(const std::vector<PlannedTensor>& tensors) {
  std::string text = R"({"__metadata__":{"format":"pt"})";
  int64_t offset = 0;
  for (const PlannedTensor& tensor : tensors) {
    const nlohmann::ordered_json entry = {{"dtype", StoredTypeName(tensor.type)},
                                          {"shape", tensor.shape},
                                          {"data_offsets", {offset, offset + tensor.bytes()}}};
    text += fmt::format(",{}:{}", nlohmann::json(tensor.name).dump(), entry.dump());
    offset += tensor.bytes();
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string head(sizeof(length), '\0');
  std::memcpy(head.data(), &length, sizeof(length));
  return head + text;
}

void SaveSafetensors(const fs::path& path, const std::vector<PlannedTensor>& tensors,
                     const TensorSource& source, ThreadPool& pool, const SaveProgress& progress) {
  const std::string head = SafetensorsHead(tensors);
  const auto head_size = static_cast<int64_t>(head.size());
  const std::vector<Piece> pieces = CutIntoPieces(tensors, head_size);
  const int64_t total = PlannedFile{"", tensors}.bytes();
  NewFile file(path);
  file.Reserve(head_size + total);
  file.Write(std::as_bytes(std::span(head)), 0);
  std::vector<std::vector<std::byte>> buffers(static_cast<size_t>(pool.threads()));
  std::mutex mutex;
  int64_t written = 0;
  pool.ParallelFor(static_cast<int64_t>(pieces.size()), 1,
                   [&](int64_t begin, int64_t end, int thread) {
                     std::vector<std::byte>& buffer = buffers[static_cast<size_t>(thread)];
                     buffer.resize(kSavePiece);
                     for (int64_t i = begin; i < end; ++i) {
                       const Piece& piece = pieces[static_cast<size_t>(i)];
                       const std::span bytes(buffer.data(), static_cast<size_t>(piece.bytes));
                       source(*piece.tensor, piece.offset, bytes);
                       file.Write(bytes, piece.place);
                       const std::lock_guard lock(mutex);
                       written += piece.bytes;
                       if (progress) progress(written, total);
                     }
                   });
  file.Finish();
}

void SaveCheckpoint(const fs::path& directory, const Config& config,
                    const std::vector<PlannedFile>& files, const TensorSource& source,
                    ThreadPool& pool, const SaveProgress& progress) {
  std::error_code failure;
  fs::create_directories(directory, failure);
  if (failure) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot make the directory: {}", directory.string(),
                                            failure.message()));
  }
  int64_t total = 0, done = 0;
  for (const PlannedFile& file : files) total += file.bytes();
  CheckSpace(directory, total);
  for (const char* old : {"config.json", "model.safetensors.index.json", "model.safetensors"}) {
    fs::remove(directory / old, failure);
  }
  for (const PlannedFile& file : files) {
    SaveProgress add;
    if (progress) add = [&](int64_t written, int64_t) { progress(done + written, total); };
    SaveSafetensors(directory / file.name, file.tensors, source, pool, add);
    done += file.bytes();
  }
  if (files.size() > 1) {
    WriteWholeFile(directory / "model.safetensors.index.json", IndexText(files, total));
  }
  WriteWholeFile(directory / "config.json", config.ToJson());
}

}  // namespace toaster
