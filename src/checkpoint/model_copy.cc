#include "checkpoint/model_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <system_error>

#include "base/error.h"
#include "base/mapped_file.h"

namespace toaster {

namespace {

constexpr int64_t kSampleBytes = 4096;
constexpr int64_t kSamples = 64;  // of each file, evenly spread

bool SameBytes(std::ifstream& copy, std::span<const std::byte> bytes, int64_t offset) {
  std::string read(bytes.size(), '\0');
  copy.seekg(offset);
  copy.read(read.data(), static_cast<std::streamsize>(read.size()));
  return copy && std::ranges::equal(std::as_bytes(std::span(read)), bytes);
}

bool SameFile(const SafetensorsFile& shard, const std::filesystem::path& path) {
  const std::span<const std::byte> bytes = shard.bytes();
  const auto size = static_cast<int64_t>(bytes.size());
  const ScopedRandomAccess single_pages(bytes);
  std::ifstream copy(path, std::ios::binary);
  const auto same = [&](int64_t offset, int64_t length) {
    const auto part = bytes.subspan(static_cast<size_t>(offset), static_cast<size_t>(length));
    return SameBytes(copy, part, offset);
  };
  int64_t header = size;  // ends where the first tensor begins
  for (const StoredTensor& tensor : shard.tensors()) header = std::min(header, tensor.offset);
  if (!same(0, header)) return false;
  for (int64_t i = 0; i < kSamples; ++i) {
    const int64_t offset = (size - header) / kSamples * i + header;
    if (!same(offset, std::min(kSampleBytes, size - offset))) return false;
  }
  return true;
}

}  // namespace

std::vector<std::filesystem::path> FindModelCopy(const Checkpoint& model,
                                                 const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  for (const SafetensorsFile& shard : model.shards()) {
    const std::filesystem::path path = directory / std::filesystem::path(shard.origin()).filename();
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    if (error) {
      throw Error(ErrorCode::kNotFound,
                  fmt::format("{}: {}; a copy of the model has the same files as {}", path.string(),
                              error.message(), model.origin()));
    }
    if (size != shard.bytes().size() || !SameFile(shard, path)) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} differs from {}; copy it again, or leave the copy out",
                              path.string(), shard.origin()));
    }
    files.push_back(path);
  }
  return files;
}

}  // namespace toaster
