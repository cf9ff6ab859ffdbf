#include "training_recording.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "tensor/number_formats.h"

namespace toaster {

namespace {

std::filesystem::path FileOf(const std::string& name) {
  return std::filesystem::path(TOASTER_SOURCE_DIR) / "tests" / "golden" / "train" / name;
}

}  // namespace

TrainingRecording::TrainingRecording(const std::string& name)
    : file_(FileOf(name + ".safetensors")) {
  std::ifstream file(FileOf(name + ".json"));
  index_ = nlohmann::json::parse(file);
}

const StoredTensor& TrainingRecording::Stored(const std::string& name) const {
  const StoredTensor* tensor = file_.Find(name);
  CHECK(tensor != nullptr, "{} is not recorded", name);
  return *tensor;
}

Tensor TrainingRecording::Floats(const std::string& name) const {
  const StoredTensor& stored = Stored(name);
  CHECK(stored.type == StoredType::kF32, "{}", stored.Description());
  Tensor tensor;
  const std::vector<int64_t>& s = stored.shape;
  switch (s.size()) {
    case 0:
      tensor.Reshape({1});
      break;
    case 1:
      tensor.Reshape({s[0]});
      break;
    case 2:
      tensor.Reshape({s[0], s[1]});
      break;
    default:
      tensor.Reshape({s[0], s[1], s[2]});
  }
  std::memcpy(tensor.data(), stored.data, static_cast<size_t>(stored.bytes));
  return tensor;
}

std::vector<int32_t> TrainingRecording::Integers(const std::string& name) const {
  const StoredTensor& stored = Stored(name);
  CHECK(stored.type == StoredType::kI32, "{}", stored.Description());
  std::vector<int32_t> values(static_cast<size_t>(stored.bytes / 4));
  std::memcpy(values.data(), stored.data, static_cast<size_t>(stored.bytes));
  return values;
}

Verdict TrainingRecording::Judge(const std::string& name, std::span<const float> values,
                                 bool may_flip, std::string* line,
                                 const std::string& noise_name) const {
  line->clear();
  const StoredTensor& stored = Stored(name);
  if (static_cast<int64_t>(values.size()) * 4 != stored.bytes) {
    *line = fmt::format("{}: {} values, recorded {}", name, values.size(), stored.Description());
    return Verdict::kMismatch;
  }
  const nlohmann::json& noise = index_.at("tensors").at(noise_name.empty() ? name : noise_name);
  double squares = 0, top = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double d =
        std::fabs(static_cast<double>(values[i]) - LoadUnaligned<float>(stored.data + 4 * i)) /
        noise[0].get<double>();
    squares += d * d;
    top = std::isnan(d) ? INFINITY : std::max(top, d);
  }
  const double rms = std::sqrt(squares / static_cast<double>(std::max<size_t>(values.size(), 1)));
  // A larger recorded noise where roundings take part comes from a flip, not from summation.
  const double quiet_rms =
      may_flip ? std::min(noise[1].get<double>(), 2e-5) : noise[1].get<double>();
  const double quiet_top =
      may_flip ? std::min(noise[2].get<double>(), 2e-4) : noise[2].get<double>();
  if (rms <= 10 * quiet_rms + 3e-6 && top <= 10 * quiet_top + 3e-5) return Verdict::kTight;
  *line = fmt::format("{}: rms {:.1e} (limit {:.1e}), max {:.1e} (limit {:.1e})", name, rms,
                      10 * quiet_rms + 3e-6, top, 10 * quiet_top + 3e-5);
  const size_t at = noise.size() > 3 ? 3 : 1;
  if (may_flip && rms <= 2 * noise[at].get<double>() + 2e-3 &&
      top <= 2 * noise[at + 1].get<double>() + 2e-2) {
    return Verdict::kFlipped;
  }
  return Verdict::kMismatch;
}

}  // namespace toaster
