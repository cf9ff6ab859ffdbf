#include "engine/embedding_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/error.h"

namespace toaster {

EmbeddingRows::EmbeddingRows(const LoadedModel& model,
                             const std::vector<std::vector<std::filesystem::path>>& copies,
                             FileEnvironment& files)
    : files_(files), table_(model.weights.embed) {
  const Checkpoint::Place place = model.checkpoint.Find("embed.weight");
  CHECK(place.tensor != nullptr && !table_.quantised());
  const auto shard = static_cast<size_t>(place.shard - model.checkpoint.shards().data());
  paths_.assign(2, model.checkpoint.ShardPaths()[shard]);
  for (const auto& copy : copies) paths_.push_back(copy[shard]);
  offset_ = place.tensor->offset;
}

void EmbeddingRows::ReadRow(int32_t token, std::span<std::byte> row) {
  const int64_t offset = offset_ + token * table_.row_bytes();
  int reason = 0;
  for (const std::filesystem::path& path : paths_) {
    size_t read = 0;
    reason = files_.Read(path, offset, row, read);
    if (reason == 0 && read == row.size()) return;
  }
  throw Error(
      ErrorCode::kIo,
      fmt::format("{}: cannot read {} bytes at offset {}, twice: {}; check the disk",
                  paths_[0].string(), row.size(), offset,
                  reason != 0 ? std::strerror(reason) : "the file ends before; it was cut"));
}

EmbeddingSource::Rows EmbeddingRows::Read(std::span<const int32_t> tokens) {
  rows_.assign(tokens.begin(), tokens.end());
  std::sort(rows_.begin(), rows_.end());
  rows_.erase(std::unique(rows_.begin(), rows_.end()), rows_.end());
  const auto row_bytes = static_cast<size_t>(table_.row_bytes());
  buffer_.resize(rows_.size() * row_bytes);
  for (size_t i = 0; i < rows_.size(); ++i)
    ReadRow(rows_[i], std::span(buffer_).subspan(i * row_bytes, row_bytes));
  numbers_.clear();
  for (const int32_t token : tokens) {
    numbers_.push_back(
        static_cast<int32_t>(std::lower_bound(rows_.begin(), rows_.end(), token) - rows_.begin()));
  }
  Matrix table = table_;
  table.rows = static_cast<int64_t>(rows_.size());
  table.data = reinterpret_cast<const uint8_t*>(buffer_.data());
  return {table, numbers_};
}

}  // namespace toaster
