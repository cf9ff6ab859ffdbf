#include "checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/printable.h"

namespace toaster {
namespace {

constexpr const char* kConfigName = "config.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

[[noreturn]] void NoModel(const std::filesystem::path& directory, const std::string& reason) {
  throw Error(ErrorCode::kNotFound,
              fmt::format("{}: no model here: {}; name a directory with {} and {} or shards",
                          directory.string(), reason, kConfigName, kSingleName));
}

}  // namespace

Checkpoint Checkpoint::Open(const std::filesystem::path& directory, DefectList* defects) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) {
    NoModel(directory,
            std::filesystem::exists(directory, ignored) ? "not a directory" : "no such directory");
  }
  if (!std::filesystem::exists(directory / kConfigName, ignored)) {
    NoModel(directory, fmt::format("{} is missing", kConfigName));
  }
  Checkpoint checkpoint;
  checkpoint.origin_ = directory.string();
  checkpoint.config_ = Config::Load(directory / kConfigName);
  checkpoint.OpenShards(directory, defects);
  checkpoint.IndexTensors(defects);
  return checkpoint;
}

Checkpoint Checkpoint::InMemory(std::string_view config, std::span<const std::byte> safetensors,
                                const std::string& origin) {
  Checkpoint checkpoint;
  checkpoint.origin_ = origin;
  checkpoint.in_memory_ = true;
  checkpoint.config_ = Config::Parse(config, origin);
  checkpoint.shards_.emplace_back(safetensors, origin);
  checkpoint.IndexTensors(nullptr);
  return checkpoint;
}

void Checkpoint::OpenShards(const std::filesystem::path& directory, DefectList* defects) {
  std::error_code ignored;
  if (std::filesystem::exists(directory / kIndexName, ignored)) {
    const MappedFile text(directory / kIndexName);
    index_ =
        ParseShardIndex({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()},
                        (directory / kIndexName).string());
    has_index_ = true;
  } else if (std::filesystem::exists(directory / kSingleName, ignored)) {
    index_.files = {kSingleName};
  } else {
    NoModel(directory, fmt::format("neither {} nor {} is there", kSingleName, kIndexName));
  }
  shards_.reserve(index_.files.size());
  for (uint32_t file = 0; file < index_.files.size(); ++file) {
    const std::filesystem::path path = directory / index_.files[file];
    try {
      shards_.emplace_back(path, defects);
    } catch (const Error& error) {
      ReportDefect(defects, error.code(),
                   error.code() == ErrorCode::kNotFound
                       ? fmt::format("{}: the index names this shard, but it is not there; "
                                     "download the rest of the checkpoint",
                                     Printable(path.string()))
                       : error.what());
      for (const auto& [name, number] : index_.weight_map) {
        if (number == file) damaged_.insert(name);
      }
    }
  }
}

void Checkpoint::IndexTensors(DefectList* defects) {
  const auto note = [&](const std::string& message) {
    if (defects != nullptr) defects->push_back(message);
  };
  std::vector<Place> misplaced;
  for (const SafetensorsFile& shard : shards_) {
    damaged_.insert(shard.broken_names().begin(), shard.broken_names().end());
    const std::string file = std::filesystem::path(shard.origin()).filename().string();
    for (const StoredTensor& tensor : shard.tensors()) {
      if (has_index_) {
        const auto entry = index_.weight_map.find(tensor.name);
        if (entry == index_.weight_map.end()) {
          note(fmt::format("{}: tensor '{}' is not in the index; download {} again", shard.origin(),
                           Printable(tensor.name), kIndexName));
          continue;
        }
        const std::string& mapped = index_.files[entry->second];
        if (mapped != file) {
          misplaced.push_back({&tensor, &shard});
          continue;
        }
      }
      tensors_.emplace(tensor.name, Place{&tensor, &shard});
    }
  }
  if (defects == nullptr) return;
  for (const Place& place : misplaced) {
    const std::string& name = place.tensor->name;
    const std::string mapped = Printable(index_.files[index_.weight_map.at(name)]);
    note(fmt::format(
        "{}: tensor '{}' is here{}; download both again", place.shard->origin(), Printable(name),
        tensors_.contains(name) ? fmt::format(" and in {}, where the index puts it", mapped)
                                : fmt::format(", but the index puts it into {}", mapped)));
    if (!tensors_.contains(name)) damaged_.insert(name);
  }
  std::vector<std::string> missing;
  for (const auto& [name, file] : index_.weight_map) {
    if (!tensors_.contains(name) && !damaged_.contains(name)) missing.push_back(name);
  }
  std::sort(missing.begin(), missing.end());
  for (const std::string& name : missing) {
    note(fmt::format("{}: tensor '{}' is not here, as the index says; download the shard again",
                     ExpectedFile(name), Printable(name)));
  }
  damaged_.insert(missing.begin(), missing.end());
}

Checkpoint::Place Checkpoint::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? Place{} : found->second;
}

std::string Checkpoint::ExpectedFile(std::string_view name) const {
  if (const Place place = Find(name); place.shard != nullptr) return place.shard->origin();
  const auto entry = index_.weight_map.find(std::string(name));
  if (entry != index_.weight_map.end()) {
    return (std::filesystem::path(origin_) / index_.files[entry->second]).string();
  }
  return shards_.size() == 1 ? shards_[0].origin() : origin_;
}

std::vector<std::filesystem::path> Checkpoint::ShardPaths() const {
  std::vector<std::filesystem::path> paths;
  if (in_memory_) return paths;
  for (const SafetensorsFile& shard : shards_) paths.emplace_back(shard.origin());
  return paths;
}

std::vector<std::string_view> Checkpoint::Names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const auto& [name, place] : tensors_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace toaster
