#include "train/trained_weights.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tensor/quantise_weights.h"

namespace toaster {

namespace {

template <typename Field>
constexpr bool kIsTable = std::is_same_v<std::remove_cvref_t<Field>, IndexTable>;
template <typename Field>
constexpr bool kIsMatrix = std::is_same_v<std::remove_cvref_t<Field>, Matrix>;

bool IsSelectionBias(const TensorSpec& spec) {
  return spec.name.size() >= 9 && spec.name.compare(spec.name.size() - 9, 9, "gate.bias") == 0;
}

int64_t RoundUp(int64_t size) { return (size + 63) / 64 * 64; }

NumberFormat FormatOf(const Config& config, const TensorSpec& spec, WeightStorage storage) {
  const bool released = storage == WeightStorage::kReleased;
  const bool quantised =
      storage == WeightStorage::kQuantisedFloats || (released && config.quantised);
  switch (spec.role) {
    case TensorRole::kLinear:
      if (quantised) return NumberFormat::kE4m3;
      return released ? NumberFormat::kBf16 : NumberFormat::kFloat32;
    case TensorRole::kExpertLinear:
      if (quantised)
        return config.expert_dtype == "fp8" ? NumberFormat::kE4m3 : NumberFormat::kE2m1;
      return released ? NumberFormat::kBf16 : NumberFormat::kFloat32;
    case TensorRole::kBf16Matrix:
    case TensorRole::kNorm:
      return released ? NumberFormat::kBf16 : NumberFormat::kFloat32;
    default:
      return NumberFormat::kFloat32;
  }
}

}  // namespace

TrainedWeights::Place TrainedWeights::PlaceFor(const TensorSpec& spec, int64_t& size) const {
  Place place;
  place.spec = spec;
  Matrix& matrix = place.matrix;
  matrix.rows = spec.columns == 0 ? 1 : spec.rows;
  matrix.columns = spec.columns == 0 ? spec.rows : spec.columns;
  matrix.format = FormatOf(config_, spec, storage_);
  if (matrix.format == NumberFormat::kE4m3 || matrix.format == NumberFormat::kE2m1) {
    const bool float_scales = storage_ == WeightStorage::kReleased &&
                              spec.role == TensorRole::kExpertLinear &&
                              config_.expert_dtype == "fp8";
    matrix.scale_format = float_scales ? ScaleFormat::kFloat32 : ScaleFormat::kE8m0;
  }
  place.begin = size;
  size += RoundUp(spec.role == TensorRole::kIndexTable ? 8 * spec.rows * spec.columns
                                                       : matrix.data_bytes());
  place.scales_begin = size;
  size += RoundUp(matrix.scale_bytes());
  return place;
}

TrainedWeights::TrainedWeights(const Config& config, WeightStorage storage)
    : config_(config), storage_(storage), weights_(EmptyWeights(config)) {
  int64_t size = 0;
  for (const TensorSpec& spec : ListTensors(config)) places_[spec.name] = PlaceFor(spec, size);
  bytes_.Resize(size);
  std::memset(bytes_.data(), 0, static_cast<size_t>(size));
  biases_.resize(static_cast<size_t>(config.total_blocks()));
  tables_.resize(biases_.size());
  VisitTensors(config_, weights_, [&](const TensorSpec& spec, auto& field) {
    Place& place = places_.at(spec.name);
    uint8_t* data = bytes_.data() + place.begin;
    place.matrix.data = data;
    place.matrix.scales = place.matrix.quantised() ? bytes_.data() + place.scales_begin : nullptr;
    if constexpr (kIsTable<decltype(field)>) {
      field = {spec.rows, spec.columns, data};
      tables_[static_cast<size_t>(spec.block)] = {
          data, static_cast<size_t>(8 * spec.rows * spec.columns)};
    } else if constexpr (kIsMatrix<decltype(field)>) {
      field = place.matrix;
    } else {
      field = {place.matrix.format, spec.rows, data};
      if (IsSelectionBias(spec)) {
        biases_[static_cast<size_t>(spec.block)] = {reinterpret_cast<float*>(data),
                                                    static_cast<size_t>(spec.rows)};
      }
    }
  });
  masters_ = std::make_unique<ParameterArrays>(config_, weights_);
}

std::span<float> TrainedWeights::RouterBias(int64_t block) {
  return biases_[static_cast<size_t>(block)];
}

std::span<uint8_t> TrainedWeights::HashTable(int64_t block) {
  return tables_[static_cast<size_t>(block)];
}

void TrainedWeights::CopyFrom(const ModelWeights& model) {
  VisitTensors(config_, model, [&](const TensorSpec& spec, const auto& field) {
    if constexpr (kIsTable<decltype(field)>) {
      std::copy_n(field.data, 8 * spec.rows * spec.columns, HashTable(spec.block).data());
    } else {
      float* to;
      if (IsSelectionBias(spec)) {
        to = biases_[static_cast<size_t>(spec.block)].data();
      } else {
        to = masters_->Values(*masters_->Find(spec.name)).data();
      }
      if constexpr (kIsMatrix<decltype(field)>) {
        for (int64_t r = 0; r < field.rows; ++r) ExpandRow(field, r, to + r * field.columns);
      } else {
        for (int64_t i = 0; i < field.size; ++i) to[i] = field[i];
      }
    }
  });
}

void TrainedWeights::StoreRows(const ParameterArrays::Part& part, int64_t first, int64_t count) {
  const Place& place = places_.at(part.spec.name);
  const Matrix& matrix = place.matrix;
  const int64_t size = count * matrix.columns;
  const float* master = masters_->Values(part).data() + first * matrix.columns;
  uint8_t* data = bytes_.data() + place.begin + first * matrix.row_bytes();
  const int64_t scales_per_row = (matrix.columns + 127) / 128;
  switch (matrix.format) {
    case NumberFormat::kFloat32:
      std::memcpy(data, master, static_cast<size_t>(4 * size));
      break;
    case NumberFormat::kBf16:
      for (int64_t i = 0; i < size; ++i) {
        const uint16_t bits = FloatToBf16(master[i]);
        std::memcpy(data + 2 * i, &bits, 2);
      }
      break;
    case NumberFormat::kE4m3: {
      std::vector<uint8_t> scales(static_cast<size_t>((count + 127) / 128 * scales_per_row));
      QuantiseTilesE4m3(master, count, matrix.columns, data, scales.data());
      const bool floats = matrix.scale_format == ScaleFormat::kFloat32;
      uint8_t* to =
          bytes_.data() + place.scales_begin + first / 128 * scales_per_row * (floats ? 4 : 1);
      for (size_t i = 0; i < scales.size(); ++i) {
        const float scale = E8m0ToFloat(scales[i]);
        if (floats) {
          std::memcpy(to + 4 * i, &scale, 4);
        } else {
          to[i] = scales[i];
        }
      }
      break;
    }
    case NumberFormat::kE2m1:
      QuantiseRowsE2m1(master, count, matrix.columns, data,
                       bytes_.data() + place.scales_begin + first * (matrix.columns / 32));
      break;
  }
}

void TrainedWeights::Store(BackwardBackend* threads) {
  struct Piece {
    const ParameterArrays::Part* part;
    int64_t first, count;
  };
  std::vector<Piece> pieces;
  for (const ParameterArrays::Part& part : masters_->parts()) {
    constexpr int64_t kRows = 256;  // whole rows of tiles
    const int64_t rows = places_.at(part.spec.name).matrix.rows;
    for (int64_t first = 0; first < rows; first += kRows)
      pieces.push_back({&part, first, std::min(kRows, rows - first)});
  }
  const auto store = [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    StoreRows(*piece.part, piece.first, piece.count);
  };
  const auto count = static_cast<int64_t>(pieces.size());
  if (threads != nullptr) return threads->ForEach(count, store);
  for (int64_t i = 0; i < count; ++i) store(i);
}

void TrainedWeights::Read(const PlannedTensor& tensor, int64_t offset,
                          std::span<std::byte> out) const {
  constexpr std::string_view kScale = ".scale";
  const std::string& name = tensor.name;
  const bool is_scale =
      name.size() > kScale.size() && name.compare(name.size() - 6, 6, kScale) == 0;
  const auto found = places_.find(is_scale ? name.substr(0, name.size() - 5) + "weight" : name);
  CHECK(found != places_.end(), "{} is no tensor of the model", name);
  const Place& place = found->second;
  std::memcpy(out.data(), bytes_.data() + (is_scale ? place.scales_begin : place.begin) + offset,
              out.size());
}

}  // namespace toaster
