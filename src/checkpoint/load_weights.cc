#include "checkpoint/load_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/mapped_file.h"
#include "base/printable.h"

namespace toaster {
namespace {

using Place = Checkpoint::Place;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Fills the views of a ModelWeights from a checkpoint, tensor by tensor.
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const Config& config, DefectList* defects)
      : checkpoint_(checkpoint), config_(config), defects_(defects) {}

  void operator()(const TensorSpec& spec, Matrix& matrix) {
    const Place place = Take(spec.name);
    if (place.tensor == nullptr) return;
    Matrix loaded;
    loaded.rows = spec.rows;
    loaded.columns = spec.columns;
    loaded.data = place.tensor->data;
    const bool fits = spec.role == TensorRole::kLinear || spec.role == TensorRole::kExpertLinear
                          ? TakeLinear(spec, place, loaded)
                          : TakePlain(spec, place, loaded.format);
    if (fits) matrix = loaded;
  }

  void operator()(const TensorSpec& spec, Vector& vector) {
    const Place place = Take(spec.name);
    if (place.tensor == nullptr) return;
    Vector loaded;
    loaded.size = spec.rows;
    loaded.data = place.tensor->data;
    if (TakePlain(spec, place, loaded.format)) vector = loaded;
  }

  void operator()(const TensorSpec& spec, IndexTable& table) {
    const Place place = Take(spec.name);
    if (place.tensor == nullptr || !Expect(place, {StoredType::kI64}, {spec.rows, spec.columns})) {
      return;
    }
    const IndexTable loaded{spec.rows, spec.columns, place.tensor->data};
    try {
      CheckExperts(loaded, config_.n_routed_experts, FullName(place));
    } catch (const Error& error) {
      ReportDefect(defects_, error.code(), error.what());
      return;
    }
    table = loaded;
  }

  bool found_quantised() const { return found_quantised_; }
  bool WasTaken(std::string_view name) const { return taken_.contains(name); }

 private:
  static std::string FullName(const Place& place) {
    return fmt::format("{}: tensor '{}'", place.shard->origin(), place.tensor->name);
  }

  void Report(ErrorCode code, const std::string& message) { ReportDefect(defects_, code, message); }

  Place Take(const std::string& name) {
    const Place place = checkpoint_.Find(name);
    if (place.tensor != nullptr) {
      taken_.insert(place.tensor->name);
    } else if (!checkpoint_.IsDamaged(name)) {
      Report(ErrorCode::kNotFound,
             fmt::format("{}: tensor '{}' is missing; download the checkpoint again, or take the "
                         "config.json that belongs to it",
                         checkpoint_.ExpectedFile(name), name));
    }
    return place;
  }

  bool Expect(const Place& place, std::initializer_list<StoredType> types,
              const std::vector<int64_t>& shape) {
    if (std::find(types.begin(), types.end(), place.tensor->type) == types.end()) {
      std::vector<std::string_view> names;
      for (const StoredType type : types) names.push_back(StoredTypeName(type));
      Report(ErrorCode::kUnsupported,
             fmt::format("{} is {}, but should be {}; convert the checkpoint to the official types",
                         FullName(place), place.tensor->Description(), fmt::join(names, " or ")));
      return false;
    }
    if (place.tensor->shape != shape) {
      Report(ErrorCode::kCorruptFile,
             fmt::format("{} is {}, but config.json makes it {}; take the config.json that belongs "
                         "to the checkpoint",
                         FullName(place), place.tensor->Description(), ShapeText(shape)));
      return false;
    }
    return true;
  }

  bool TakePlain(const TensorSpec& spec, const Place& place, NumberFormat& format) {
    const bool is_float =
        spec.role == TensorRole::kFloatMatrix || spec.role == TensorRole::kFloatVector;
    format = is_float ? NumberFormat::kFloat32 : NumberFormat::kBf16;
    std::vector<int64_t> shape = {spec.rows};
    if (spec.columns != 0) shape.push_back(spec.columns);
    return Expect(place, {is_float ? StoredType::kF32 : StoredType::kBf16}, shape);
  }

  bool TakeLinear(const TensorSpec& spec, const Place& place, Matrix& matrix) {
    const StoredType type = place.tensor->type;
    const bool may_be_packed = spec.role == TensorRole::kExpertLinear;
    if (may_be_packed && (type == StoredType::kI8 || type == StoredType::kU8)) {
      matrix.format = NumberFormat::kE2m1;
      matrix.scale_format = ScaleFormat::kE8m0;
      return Expect(place, {type}, {spec.rows, spec.columns / 2}) && CheckInputWidth(spec, place) &&
             TakeScales(spec, matrix);
    }
    if (type == StoredType::kF8E4m3) {
      matrix.format = NumberFormat::kE4m3;
      return Expect(place, {type}, {spec.rows, spec.columns}) && CheckInputWidth(spec, place) &&
             TakeScales(spec, matrix);
    }
    matrix.format = NumberFormat::kBf16;
    const bool fits =
        may_be_packed
            ? Expect(place, {StoredType::kI8, StoredType::kF8E4m3, StoredType::kBf16},
                     {spec.rows, spec.columns})
            : Expect(place, {StoredType::kF8E4m3, StoredType::kBf16}, {spec.rows, spec.columns});
    if (!fits) return false;
    if (checkpoint_.Find(ScaleName(spec.name)).tensor != nullptr) {
      taken_.insert(checkpoint_.Find(ScaleName(spec.name)).tensor->name);
      Report(ErrorCode::kCorruptFile,
             fmt::format("{} is BF16, yet '{}' stands beside it; remove the scales",
                         FullName(place), ScaleName(spec.name)));
      return false;
    }
    return true;
  }

  // Inputs of quantised layers are rounded in blocks of 128; the input of wo_a never is.
  bool CheckInputWidth(const TensorSpec& spec, const Place& place) {
    if (spec.columns % 128 == 0 || spec.name.ends_with("attn.wo_a.weight")) return true;
    Report(ErrorCode::kUnsupported,
           fmt::format("{} is quantised, but {} inputs are no multiple of 128; store it as BF16",
                       FullName(place), spec.columns));
    return false;
  }

  bool TakeScales(const TensorSpec& spec, Matrix& matrix) {
    const Place place = Take(ScaleName(spec.name));
    if (place.tensor == nullptr) return false;
    if (matrix.format == NumberFormat::kE2m1) {
      if (!Expect(place, {StoredType::kF8E8m0}, {spec.rows, spec.columns / 32})) return false;
    } else {
      if (!Expect(place, {StoredType::kF8E8m0, StoredType::kF32},
                  {(spec.rows + 127) / 128, (spec.columns + 127) / 128})) {
        return false;
      }
      matrix.scale_format =
          place.tensor->type == StoredType::kF32 ? ScaleFormat::kFloat32 : ScaleFormat::kE8m0;
    }
    matrix.scales = place.tensor->data;
    found_quantised_ = true;
    if (spec.routed_expert || defects_ != nullptr) return true;
    const ScopedRandomAccess access(
        std::as_bytes(std::span(matrix.scales, static_cast<size_t>(matrix.scale_bytes()))));
    try {
      CheckScales(matrix, fmt::format("{}: tensor '{}'", place.shard->origin(), spec.name));
    } catch (const Error& error) {
      Report(error.code(), error.what());
      return false;
    }
    return true;
  }

  const Checkpoint& checkpoint_;
  const Config& config_;
  DefectList* defects_;
  std::unordered_set<std::string_view> taken_;
  bool found_quantised_ = false;
};

// Later releases ship draft stages of another kind under the same names; they are left out.
void TakeOutForeignDrafts(const Checkpoint& checkpoint, Config& config,
                          std::vector<std::string>& notes) {
  if (checkpoint.Find("mtp.0.main_proj.weight").tensor == nullptr) return;
  config.num_nextn_predict_layers = 0;
  config.compress_ratios.resize(static_cast<size_t>(config.num_hidden_layers));
  notes.push_back(
      "the draft stages are of the DSpark kind, which this program cannot run; they are left out");
}

// A description takes memory before any tensor is looked for, so a config that asks for more
// experts than there are tensors ends here.
void CheckTensorCount(const Checkpoint& checkpoint, const Config& config) {
  const int64_t matrices = 3 * config.total_blocks() * config.n_routed_experts;
  const size_t tensors = checkpoint.size() + checkpoint.damaged_count();
  if (matrices <= static_cast<int64_t>(tensors)) return;
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("{}: config.json describes {} matrices of routed experts, but there are "
                          "only {} tensors in all; download the missing shards, or take the "
                          "config.json that belongs to the checkpoint",
                          checkpoint.origin(), matrices, tensors));
}

void NoteUnused(const WeightLoader& loader, LoadedModel& model) {
  for (const std::string_view name : model.checkpoint.Names()) {
    if (!loader.WasTaken(name)) model.unused.emplace_back(name);
  }
  const auto is_draft = [](const std::string& name) { return name.starts_with("mtp."); };
  const auto drafts = std::count_if(model.unused.begin(), model.unused.end(), is_draft);
  const auto other = std::find_if_not(model.unused.begin(), model.unused.end(), is_draft);
  if (drafts > 0) {
    model.notes.push_back(fmt::format("{} tensors under mtp.* are not used", drafts));
  }
  if (other != model.unused.end()) {
    model.notes.push_back(fmt::format("{} tensors are not used, the first of them '{}'",
                                      static_cast<int64_t>(model.unused.size()) - drafts,
                                      Printable(*other)));
  }
}

[[noreturn]] void RefuseScale(const std::string& name, int64_t at, int64_t columns,
                              const std::string& value) {
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("{} has the scale {} at [{}, {}], which is no power of two; download the "
                          "file again",
                          name, value, at / columns, at % columns));
}

}  // namespace

bool IsScale(float scale) {
  const auto bits = std::bit_cast<uint32_t>(scale);
  const uint32_t exponent = bits >> 23, mantissa = bits & 0x7FFFFF;
  // Byte 0 of UE8M0, 2^-127, is the one denormal among them.
  return exponent == 0 ? mantissa == 0x400000 : exponent < 255 && mantissa == 0;
}

void CheckScales(const Matrix& matrix, const std::string& name) {
  if (!matrix.quantised()) return;
  const int64_t bytes = matrix.scale_bytes(), columns = matrix.scale_columns();
  if (matrix.scale_format == ScaleFormat::kE8m0) {
    const auto* bad =
        static_cast<const uint8_t*>(std::memchr(matrix.scales, 255, static_cast<size_t>(bytes)));
    if (bad != nullptr) RefuseScale(name, bad - matrix.scales, columns, "NaN");
    return;
  }
  for (int64_t i = 0; i < bytes / 4; ++i) {
    const auto scale = LoadUnaligned<float>(matrix.scales + 4 * i);
    if (!IsScale(scale)) RefuseScale(name, i, columns, fmt::format("{}", scale));
  }
}

void CheckExpertScales(const LoadedModel& model, int64_t block, int64_t number,
                       const ExpertWeights& expert) {
  const int64_t layers = model.config.num_hidden_layers;
  const std::string prefix = block < layers
                                 ? fmt::format("layers.{}.ffn.experts.{}.", block, number)
                                 : fmt::format("mtp.{}.ffn.experts.{}.", block - layers, number);
  for (const auto& [name, matrix] :
       {std::pair{"w1", &expert.w1}, {"w2", &expert.w2}, {"w3", &expert.w3}}) {
    const std::string tensor = prefix + name + ".weight";
    CheckScales(*matrix, model.checkpoint.ExpectedFile(tensor) + ": " + tensor);
  }
}

void CheckExperts(const IndexTable& table, int64_t experts, const std::string& name) {
  for (int64_t row = 0; row < table.rows; ++row) {
    for (int64_t column = 0; column < table.columns; ++column) {
      const int64_t expert = table.At(row, column);
      if (expert >= 0 && expert < experts) continue;
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("{} sends token {} to expert {}, but there are {}; download the file "
                              "again",
                              name, row, expert, experts));
    }
  }
}

LoadedModel LoadModel(Checkpoint checkpoint, DefectList* defects) {
  LoadedModel model{std::move(checkpoint), {}, {}, {}, {}};
  model.config = model.checkpoint.config();
  for (const std::string& key : model.config.unknown_keys) {
    model.notes.push_back(fmt::format("config.json: the key '{}' is unknown and ignored", key));
  }
  TakeOutForeignDrafts(model.checkpoint, model.config, model.notes);
  CheckTensorCount(model.checkpoint, model.config);
  model.weights = EmptyWeights(model.config);
  WeightLoader loader(model.checkpoint, model.config, defects);
  VisitTensors(model.config, model.weights, loader);
  model.config.quantised = loader.found_quantised();
  NoteUnused(loader, model);
  return model;
}

LoadedModel LoadModel(const std::filesystem::path& directory) {
  return LoadModel(Checkpoint::Open(directory));
}

}  // namespace toaster
