#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "checkpoint/defects.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"
#include "model/config.h"

namespace toaster {

/// The files of one checkpoint: its config and its tensors, wherever they lie. Owns the mappings
/// that the tensors point into; knows nothing of what the tensors mean. Opening reads the headers
/// and the index, not the weights. Not copied; moving keeps every pointer valid. Safe to read from
/// any thread.
class Checkpoint {
 public:
  /// Opens `directory`: config.json and either model.safetensors.index.json with the shards it
  /// names or a single model.safetensors.
  ///
  /// Throws Error(kNotFound) if there is no model or a shard is missing, and Error(kCorruptFile) if
  /// a file breaks its format. With `defects`, whatever is wrong with index and shards is listed
  /// there and left out, also what does not hinder loading: a tensor in two shards or in another
  /// than the index says. The config has to be sound in any case.
  static Checkpoint Open(const std::filesystem::path& directory, DefectList* defects = nullptr);

  /// A checkpoint in memory: the text of a config.json and the bytes of one safetensors file, which
  /// have to outlive the object. `origin` names it in messages.
  static Checkpoint InMemory(std::string_view config, std::span<const std::byte> safetensors,
                             const std::string& origin);

  /// As the config.json states it.
  const Config& config() const { return config_; }
  /// The directory, or the origin given to InMemory().
  const std::string& origin() const { return origin_; }
  const std::vector<SafetensorsFile>& shards() const { return shards_; }
  /// The files of the shards, in their order; none if they are in memory.
  std::vector<std::filesystem::path> ShardPaths() const;
  /// Tensors that can be found.
  size_t size() const { return tensors_.size(); }

  struct Place {
    const StoredTensor* tensor = nullptr;
    const SafetensorsFile* shard = nullptr;
  };
  /// Both null if there is no such tensor.
  Place Find(std::string_view name) const;
  /// The file that should hold a tensor: the shard that has it, or the one that the index names, or
  /// the directory. For messages.
  std::string ExpectedFile(std::string_view name) const;
  /// Whether a tensor is missing because of a defect that was listed when opening.
  bool IsDamaged(std::string_view name) const { return damaged_.contains(std::string(name)); }
  size_t damaged_count() const { return damaged_.size(); }
  /// All names, sorted.
  std::vector<std::string_view> Names() const;

 private:
  void OpenShards(const std::filesystem::path& directory, DefectList* defects);
  void IndexTensors(DefectList* defects);

  std::string origin_;
  Config config_;
  std::vector<SafetensorsFile> shards_;
  std::unordered_map<std::string_view, Place> tensors_;  // names stand in the shards
  bool has_index_ = false;
  ShardIndex index_;
  std::unordered_set<std::string> damaged_;
  bool in_memory_ = false;
};

}  // namespace toaster
