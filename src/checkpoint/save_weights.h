#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/official_layout.h"
#include "model/config.h"

namespace toaster {

/// Writes bytes [offset, offset + out.size()) of a tensor into `out`; offset is a multiple of
/// kSavePiece. Called by several threads at once.
using TensorSource =
    std::function<void(const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out)>;

/// Told the bytes written so far and the bytes in all, one call at a time.
using SaveProgress = std::function<void(int64_t written, int64_t total)>;

/// Tensors are asked for in pieces of this many bytes.
inline constexpr int64_t kSavePiece = 4 << 20;

/// Writes one file of tensors into an existing directory, as SaveCheckpoint() does. `after_piece`,
/// if given, is told the bytes of each piece that was written, one call at a time.
void SaveTensors(const std::filesystem::path& directory, const PlannedFile& plan,
                 const TensorSource& source, ThreadPool& pool,
                 const std::function<void(int64_t bytes)>& after_piece = nullptr);

/// Writes a checkpoint: `files`, an index if they are more than one, and config.json.
///
/// The directory is made if need be. Every file is written under a temporary name, brought to disk
/// and then renamed; config.json comes last and an old one goes first, so a directory with a
/// config.json is complete. Holds one piece per thread in memory. Throws Error(kIo), naming the
/// file, if the disk is or would become full or refuses; temporary files are removed then.
void SaveCheckpoint(const std::filesystem::path& directory, const Config& config,
                    const std::vector<PlannedFile>& files, const TensorSource& source,
                    ThreadPool& pool, const SaveProgress& progress = nullptr);

}  // namespace toaster
