#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "base/file_environment.h"
#include "checkpoint/load_weights.h"
#include "model/embedding_source.h"

namespace toaster {

/// The embedding table of a model in files, read row by row as tokens need them: a pass touches a
/// few of its rows, and all of them take more memory than many experts. Reads go through the page
/// cache, which keeps the rows that come often, and which the system takes back when memory is
/// short. Not through the mapping, where a failing disk would end the process.
///
/// One thread at a time.
class EmbeddingRows : public EmbeddingSource {
 public:
  /// A text's tokens are a small part of the vocabulary: the rows to count with in a memory plan.
  static constexpr int64_t kUsualRows = 8192;

  /// `model` has its table in a file; only its place is remembered. `copies`: files of further
  /// copies of the model, see FindModelCopy(). `files` is borrowed.
  explicit EmbeddingRows(const LoadedModel& model,
                         const std::vector<std::vector<std::filesystem::path>>& copies = {},
                         FileEnvironment& files = FileEnvironment::System());

  /// Tries again once, then the copies; then throws Error(kIo) naming the model's own file and the
  /// offset.
  Rows Read(std::span<const int32_t> tokens) override;

 private:
  void ReadRow(int32_t token, std::span<std::byte> row);

  FileEnvironment& files_;
  std::vector<std::filesystem::path> paths_;  // in the order of trying, the first one twice
  int64_t offset_ = 0;
  Matrix table_;
  std::vector<int32_t> rows_, numbers_;  // the table's rows in buffer_; a token's place among them
  std::vector<std::byte> buffer_;
};

}  // namespace toaster
