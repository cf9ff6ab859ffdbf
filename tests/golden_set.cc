#include "golden_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

namespace toaster {

namespace {

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

struct Limits {
  double rms, top;
};

// Limits as fractions of the recorded standard deviation. fp32 runs differ by the order of sums
// only; official ones by flipped roundings, measured when recording; single steps from recorded
// input leave hardly anything to differ.
Limits LimitsFor(const std::string& name, const nlohmann::json& info) {
  if (name.rfind("fp32.", 0) == 0) return {5e-5, 5e-4};
  if (name.find(".local.") != std::string::npos) {
    if (EndsWith(name, "attn_in")) return {0.002, 0.05};
    if (EndsWith(name, "attn_out")) return {0.015, 0.3};
    if (EndsWith(name, "ffn_out")) return {0.005, 0.2};
    return {0.01, 0.2};
  }
  return {3 * info["noise_rms"].get<double>() + 0.01, 4 * info["noise_max"].get<double>() + 0.05};
}

int64_t DifferingRows(const std::vector<int32_t>& a, const int32_t* b, int64_t rows) {
  const int64_t width = rows == 0 ? 0 : static_cast<int64_t>(a.size()) / rows;
  int64_t differing = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const auto sorted = [&](const int32_t* from) {
      std::vector<int32_t> copy(static_cast<size_t>(width));
      std::memcpy(copy.data(), from + row * width, copy.size() * 4);
      std::sort(copy.begin(), copy.end());
      return copy;
    };
    differing += sorted(a.data()) != sorted(b);
  }
  return differing;
}

}  // namespace

std::filesystem::path GoldenSet::Folder(const std::string& name) {
  return std::filesystem::path(TOASTER_SOURCE_DIR) / "tests" / "golden" / name;
}

std::vector<std::string> GoldenSet::Names() {
  return {"g1_minimal", "g2_all_kinds", "g3_wide_two_shards", "g4_fp8_experts"};
}

GoldenSet::GoldenSet(const std::string& name)
    : model_(LoadModel(Folder(name) / "checkpoint")),
      recording_(Folder(name) / "golden.safetensors"),
      json_(ReadText(Folder(name) / "golden.json")) {
  runs_ = RunList::Parse(json_, name);
}

std::vector<std::string> GoldenSet::Mismatches(const RecordedTensors& results,
                                               Numerics numerics) const {
  const nlohmann::json infos = nlohmann::json::parse(json_)["tensors"];
  const std::string mode = numerics == Numerics::kOfficial ? "official." : "fp32.";
  std::set<std::string> names;
  for (const auto& [name, info] : infos.items()) {
    if (name.rfind(mode, 0) != 0) continue;
    names.insert(name);
    for (const char* step : {"attn_in", "attn_out", "ffn_out", "hidden"}) {
      if (name.rfind("official.trace.layer.", 0) == 0 && EndsWith(name, step)) {
        names.insert("official.local." + name.substr(std::string("official.trace.").size()));
      }
    }
  }
  std::vector<std::string> lines;
  for (const std::string& name : names) {
    std::string recorded_name = name;
    if (const size_t at = name.find(".local."); at != std::string::npos)
      recorded_name.replace(at, 7, ".trace.");
    const nlohmann::json& info = infos[recorded_name];
    const StoredTensor& recorded = *recording_.Find(recorded_name);
    const auto found = results.find(name);
    if (found == results.end()) {
      lines.push_back(name + ": missing");
      continue;
    }
    const RecordedTensor& result = found->second;
    if (result.shape != recorded.shape) {
      lines.push_back(fmt::format("{}: shape [{}], recorded {}", name,
                                  fmt::join(result.shape, ", "), recorded.Description()));
      continue;
    }
    std::vector<int32_t> recorded_integers(static_cast<size_t>(recorded.bytes / 4));
    std::memcpy(recorded_integers.data(), recorded.data, static_cast<size_t>(recorded.bytes));
    if (EndsWith(name, "tokens")) {
      const auto first =
          std::mismatch(result.integers.begin(), result.integers.end(), recorded_integers.begin())
              .first;
      const int64_t same = first - result.integers.begin();
      if (same < info["stable"].get<int64_t>())
        lines.push_back(fmt::format("{}: first {} equal", name, same));
      continue;
    }
    if (result.is_integer) {
      const int64_t rows = result.shape[0];
      const int64_t differing = DifferingRows(result.integers, recorded_integers.data(), rows);
      const int64_t slack = mode == "fp32." ? 0 : info["rows_differing"].get<int64_t>() + rows / 50;
      if (differing > slack)
        lines.push_back(
            fmt::format("{}: {} of {} rows differ, {} may", name, differing, rows, slack));
      continue;
    }
    size_t count = result.floats.size();
    if (EndsWith(name, "greedy.logits")) {
      const auto stable = infos[mode + "greedy.tokens"]["stable"].get<int64_t>();
      count = static_cast<size_t>(std::min(result.shape[0], stable + 1) * result.shape[1]);
    }
    double squares = 0, top = 0;
    for (size_t i = 0; i < count; ++i) {
      const float expected = LoadUnaligned<float>(recorded.data + 4 * i);
      if (!std::isfinite(expected)) continue;
      const double difference = std::fabs(static_cast<double>(result.floats[i]) - expected);
      squares += difference * difference;
      top = std::isnan(difference) ? INFINITY : std::max(top, difference);
    }
    const double std_deviation = info["std"].get<double>();
    const double rms = std::sqrt(squares / static_cast<double>(count)) / std_deviation;
    top /= std_deviation;
    const Limits limits = LimitsFor(name, info);
    if (!(rms <= limits.rms && top <= limits.top)) {
      lines.push_back(fmt::format("{}: rms {:.2e} (limit {:.1e}), max {:.2e} (limit {:.1e})", name,
                                  rms, limits.rms, top, limits.top));
    }
  }
  return lines;
}

}  // namespace toaster
