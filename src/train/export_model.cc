#include "train/export_model.h"

#include <fmt/format.h>

#include "base/error.h"
#include "checkpoint/official_layout.h"
#include "checkpoint/save_weights.h"

namespace toaster {

namespace {

namespace fs = std::filesystem;

void CopyCompanions(const fs::path& from, const fs::path& to) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "encoding"}) {
    if (!fs::exists(from / name)) continue;
    std::error_code error;
    fs::copy(from / name, to / name,
             fs::copy_options::overwrite_existing | fs::copy_options::recursive, error);
    if (error) {
      throw Error(ErrorCode::kIo, fmt::format("cannot copy {} to {}: {}", (from / name).string(),
                                              to.string(), error.message()));
    }
  }
}

}  // namespace

void ExportModel(const TrainedWeights& weights, const fs::path& companions,
                 const fs::path& directory, ThreadPool& pool) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    throw Error(ErrorCode::kIo,
                fmt::format("cannot make {}: {}", directory.string(), error.message()));
  }
  // The weights come last: they write the config.json that says that all is there.
  if (!companions.empty() && !fs::equivalent(companions, directory, error))
    CopyCompanions(companions, directory);
  const Config& config = weights.config();
  std::vector<PlannedFile> files = OfficialShards(config);
  constexpr int64_t kOneFile = int64_t{64} << 20;  // small models need no shards
  int64_t bytes = 0;
  for (const PlannedFile& file : files) bytes += file.bytes();
  if (bytes < kOneFile) files = SingleFile(config);
  SaveCheckpoint(
      directory, config, files,
      [&](const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) {
        weights.Read(tensor, offset, out);
      },
      pool);
}

}  // namespace toaster
