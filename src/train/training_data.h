#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "chat/prompt_texts.h"
#include "tokenizer/tokenizer.h"
#include "train/training_pass.h"

namespace toaster {

/// Where a run stands in its data.
struct DataPosition {
  int64_t epoch = 0;
  int64_t next = 0;  ///< document of the epoch's order that comes next
  bool operator==(const DataPosition&) const = default;
};

/// Told, now and then, the bytes of the files that are done and the bytes in all; false asks to
/// stop.
using ReadProgress = std::function<bool(int64_t done, int64_t total)>;

/// Documents as tokens, in memory: four bytes a token, one more where not every token is to be
/// learned.
///
/// A folder stands for the files in it, by name. A .jsonl file has a document a line: {"text":
/// "..."}, or a conversation as a chat request, rendered as the model will see it, of which what
/// the assistant says is to be learned and nothing else. Any other file is text; its documents are
/// separated by lines that hold nothing but <|endoftext|>, and each is begun by BOS and ended by
/// EOS where the tokenizer has them. Documents longer than the limit are cut into pieces.
class TrainingData {
 public:
  /// Throws Error(kNotFound), Error(kInvalidArgument) naming file and line for what cannot be read
  /// or is no document, and Error(kCancelled).
  static TrainingData Read(const std::vector<std::filesystem::path>& paths,
                           const Tokenizer& tokenizer, const PromptTexts& texts,
                           int64_t sequence_tokens, const ReadProgress& progress = nullptr);

  /// Takes out the documents that `share` of all contents fall to, whatever their order is.
  TrainingData SetAside(double share);

  int64_t documents() const { return static_cast<int64_t>(ends_.size()); }
  int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }
  Document At(int64_t document) const;
  /// XXH3-128 of all documents in their order.
  std::string DigestHex() const;

  /// The documents of the next step: as many whole ones as `batch_tokens` hold, at least one; moves
  /// `position` behind them. Every epoch has an order of its own, which `seed` decides. A batch
  /// does not reach into the next epoch.
  std::vector<Document> NextBatch(DataPosition& position, int64_t batch_tokens, uint64_t seed);

  void Add(std::span<const int32_t> tokens, std::span<const uint8_t> wanted);

 private:
  const std::vector<int32_t>& Order(int64_t epoch, uint64_t seed);

  std::vector<int32_t> tokens_;
  std::vector<uint8_t> wanted_;  ///< as long as tokens_ once a document wants less than all
  std::vector<int64_t> ends_;
  std::vector<int32_t> order_;
  int64_t ordered_epoch_ = -1;
  uint64_t ordered_seed_ = 0;
};

}  // namespace toaster
