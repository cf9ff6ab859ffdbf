#include "training_model.h"

#include "checkpoint/load_weights.h"
#include "golden_set.h"

namespace toaster {

namespace {

LoadedModel Load(const TrainingRecording& recording) {
  const std::string set = recording.index()["checkpoint"];
  return LoadModel(GoldenSet::Folder(set) / "checkpoint");
}

Config ConfigOf(const TrainingRecording& recording, bool dense) {
  Config config = Load(recording).config;
  if (dense) config.index_topk = int64_t{1} << 20;
  return config;
}

// Moves numbers off the grid of their format by factors between 0.75 and 1.25.
void Shake(std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const auto hash = static_cast<uint32_t>(i * 2654435761u);
    values[i] *= 0.75f + static_cast<float>(hash >> 8) * 0x1p-25f;
  }
}

BackendOptions With(BackendOptions options, bool qat) {
  options.numerics = qat ? Numerics::kQuantisedFloat32 : Numerics::kFloat32;
  return options;
}

}  // namespace

TrainingModel::TrainingModel(const TrainingRecording& recording, bool qat, bool dense,
                             BackendOptions options)
    : weights(ConfigOf(recording, dense),
              qat ? WeightStorage::kQuantisedFloats : WeightStorage::kFloats),
      backend(CreateBackend(With(options, qat))),
      backward(CreateBackward(With(options, qat))),
      model(weights.config(), weights.weights(), *backend) {
  const LoadedModel loaded = Load(recording);
  weights.CopyFrom(loaded.weights);
  VisitTensors(loaded.config, loaded.weights, [&](const TensorSpec& spec, const auto& field) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, Matrix>) {
      if (field.quantised()) {
        ParameterArrays& masters = weights.masters();
        Shake(masters.Values(*masters.Find(spec.name)));
      }
    }
  });
  weights.Store();
  if (!recording.Has("tokens") || !recording.Has("lengths")) return;
  tokens = recording.Integers("tokens");
  size_t begin = 0;
  for (const int32_t length : recording.Integers("lengths")) {
    documents.push_back(
        {std::span<const int32_t>(tokens).subspan(begin, static_cast<size_t>(length))});
    begin += static_cast<size_t>(length);
  }
}

}  // namespace toaster
