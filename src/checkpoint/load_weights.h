#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/defects.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {

/// A model seen in place in its checkpoint: every view of `weights` points into the mappings that
/// `checkpoint` owns. Moving keeps the views valid.
struct LoadedModel {
  Checkpoint checkpoint;
  /// The file's config with what the tensors decide: drafts that this program cannot run are taken
  /// out, `quantised` says whether any matrix is.
  Config config;
  ModelWeights weights;
  /// What a user should know, a line each: unknown keys, ignored tensors, drafts left out.
  std::vector<std::string> notes;
  /// Names of tensors that are in the files and not in the model, sorted.
  std::vector<std::string> unused;
};

/// Views all tensors of the model in `checkpoint`: names, stored types, shapes and companion scales
/// are checked, and so are the scales of the dense matrices and the experts in hash-routing tables.
/// No other weight is read; scales of routed experts are for CheckScales() on first use.
///
/// Throws Error(kNotFound) for a missing tensor and Error(kCorruptFile) or Error(kUnsupported) for
/// one that does not fit, naming file, tensor and remedy. With `defects`, lists them there, leaves
/// these views empty and checks no scales: VerifyCheckpoint() examines all numbers.
LoadedModel LoadModel(Checkpoint checkpoint, DefectList* defects = nullptr);
/// Opens the checkpoint in `directory` and loads it.
LoadedModel LoadModel(const std::filesystem::path& directory);

/// Throws Error(kCorruptFile), naming the tensor, if a scale of `matrix` is no power of two that
/// UE8M0 can express: a byte of 255, or an F32 number that is negative, zero, not finite, not a
/// power of two or out of range. `name` is that of the weight, with the file in front if known.
void CheckScales(const Matrix& matrix, const std::string& name);

/// The same for the three matrices of routed expert `number` of block `block` (main layers, then
/// drafts), wherever `expert` sees them.
void CheckExpertScales(const LoadedModel& model, int64_t block, int64_t number,
                       const ExpertWeights& expert);

/// Whether UE8M0 can express `scale`: it is 2^-127 to 2^127.
bool IsScale(float scale);

/// The same for the entries of a hash-routing table: each names one of `experts`.
void CheckExperts(const IndexTable& table, int64_t experts, const std::string& name);

}  // namespace toaster
