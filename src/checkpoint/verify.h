#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/defects.h"

namespace toaster {

/// What a checkpoint is like after reading all of it.
struct VerifyReport {
  DefectList defects;              ///< a line each: file, tensor, remedy; empty for a sound one
  std::vector<std::string> notes;  ///< what is unusual but no defect
  int64_t files = 0;
  int64_t tensors = 0;
  int64_t bytes = 0;  ///< of tensors, all read
};

/// Told the bytes read so far and the bytes in all, one call at a time.
using VerifyProgress = std::function<void(int64_t read, int64_t total)>;

/// Goes through the checkpoint in `directory` and lists everything that is wrong: what hinders
/// loading, but all of it, and besides bytes of no tensor, tensors in two shards or in another than
/// the index says, tensors that are not part of the model, numbers that are NaN or infinite, and
/// scales that are no powers of two. Reads with pread, so a failing disk is a defect and not a
/// signal. Throws nothing that a file could cause.
VerifyReport VerifyCheckpoint(const std::filesystem::path& directory, ThreadPool& pool,
                              const VerifyProgress& progress = nullptr);

}  // namespace toaster
