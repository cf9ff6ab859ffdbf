#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
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

/// The head of a safetensors file: length and header, padded with spaces to a multiple of eight
/// bytes. The data of the tensors follow in their order without gaps.
std::string SafetensorsHead(const std::vector<PlannedTensor>& tensors);

/// Writes one safetensors file, as SaveCheckpoint() writes each of its files.
void SaveSafetensors(const std::filesystem::path& file, const std::vector<PlannedTensor>& tensors,
                     const TensorSource& source, ThreadPool& pool,
                     const SaveProgress& progress = nullptr);

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
