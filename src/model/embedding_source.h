#pragma once

#include <cstdint>
#include <span>

#include "tensor/matrix.h"

namespace toaster {

/// Where a forward pass finds rows of an embedding table that is not in memory.
class EmbeddingSource {
 public:
  virtual ~EmbeddingSource() = default;

  /// A table of fewer rows, and which of them belongs to each of the tokens.
  struct Rows {
    Matrix table;
    std::span<const int32_t> numbers;  ///< per token
  };
  /// The rows of `tokens`, all within the vocabulary. Valid until the next call. Throws Error(kIo).
  virtual Rows Read(std::span<const int32_t> tokens) = 0;
};

}  // namespace toaster
