#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/official_layout.h"
#include "model/config.h"
#include "model/gradients.h"
#include "model/weights.h"

namespace toaster {

/// How the numbers that the forward pass sees are stored. Training that is to be served uses
/// `released`; the other two are for checks against arithmetic without BF16.
enum class WeightStorage {
  kReleased,         ///< as a checkpoint of the config stores them
  kFloats,           ///< all floats
  kQuantisedFloats,  ///< E4M3 and E2M1 where a quantised checkpoint has them, else floats
};

/// The weights of a model under training: float masters, and what the forward pass sees of them,
/// which is bit for bit what a saved checkpoint holds. Owns both, the routers' selection biases and
/// the hash tables. One thread at a time.
class TrainedWeights {
 public:
  TrainedWeights(const Config& config, WeightStorage storage);
  TrainedWeights(const TrainedWeights&) = delete;
  TrainedWeights& operator=(const TrainedWeights&) = delete;

  const Config& config() const { return config_; }
  /// What the forward pass computes with. Changed by Store() alone, and biases at once.
  const ModelWeights& weights() const { return weights_; }
  ParameterArrays& masters() { return *masters_; }
  const ParameterArrays& masters() const { return *masters_; }
  /// The selection bias of a block's router; empty in a hash-routed one.
  std::span<float> RouterBias(int64_t block);
  /// The hash table of a block, [vocabulary, experts per token] of int64; empty in a scored one.
  std::span<uint8_t> HashTable(int64_t block);

  /// Takes masters, biases and tables from a model of the same shapes, in whatever formats.
  void CopyFrom(const ModelWeights& model);
  /// Rounds the masters into the stored form, on the threads of a backend if there is one.
  void Store(BackwardBackend* threads = nullptr);

  /// Stored bytes of a tensor or its scales under the checkpoint's name; a TensorSource for
  /// SaveCheckpoint() in `released` storage.
  void Read(const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) const;

 private:
  struct Place {
    TensorSpec spec;
    Matrix matrix;  ///< of a vector: one row
    int64_t begin = 0, scales_begin = 0;
  };
  Place PlaceFor(const TensorSpec& spec, int64_t& size) const;
  /// Store() of rows [first, first + count), `first` a multiple of 128.
  void StoreRows(const ParameterArrays::Part& part, int64_t first, int64_t count);

  const Config config_;
  const WeightStorage storage_;
  ModelWeights weights_;
  std::unordered_map<std::string, Place> places_;
  AlignedArray<uint8_t> bytes_;
  std::unique_ptr<ParameterArrays> masters_;
  std::vector<std::span<float>> biases_;
  std::vector<std::span<uint8_t>> tables_;
};

}  // namespace toaster
