#include "train/training_checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/save_weights.h"

namespace toaster {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-", kEnding = ".safetensors";

// One stretch of memory that a checkpoint holds.
struct Stretch {
  std::string name;
  StoredType type;
  std::span<uint8_t> bytes;
};

std::span<uint8_t> BytesOf(std::span<float> values) {
  return {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()};
}

std::vector<Stretch> StretchesOf(TrainedWeights& weights, Optimizer& optimizer) {
  std::vector<Stretch> stretches = {
      {"masters", StoredType::kF32, BytesOf(weights.masters().values())},
      {"momentum", StoredType::kF32, BytesOf(optimizer.momentum().values())},
      {"square", StoredType::kF32, BytesOf(optimizer.square().values())}};
  for (int64_t block = 0; block < weights.config().total_blocks(); ++block) {
    const std::span<float> bias = weights.RouterBias(block);
    if (!bias.empty())
      stretches.push_back({fmt::format("bias.{}", block), StoredType::kF32, BytesOf(bias)});
    const std::span<uint8_t> table = weights.HashTable(block);
    if (!table.empty())
      stretches.push_back({fmt::format("table.{}", block), StoredType::kI64, table});
  }
  return stretches;
}

std::string_view TextOf(const StoredTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data), static_cast<size_t>(tensor.bytes)};
}

[[noreturn]] void Damaged(const fs::path& file, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("{}: {}; remove it to go on from the one before", file.string(), what));
}

void SyncFolder(const fs::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // the rename is done; only its surviving a power cut is in doubt
  fsync(descriptor);
  close(descriptor);
}

}  // namespace

fs::path TrainingCheckpointFile(const fs::path& folder, int64_t step) {
  return folder / fmt::format("{}{:08}{}", kPrefix, step, kEnding);
}

std::vector<int64_t> TrainingCheckpoints(const fs::path& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix) || !name.ends_with(kEnding)) continue;
    const std::string digits =
        name.substr(kPrefix.size(), name.size() - kPrefix.size() - kEnding.size());
    const bool number =
        !digits.empty() && digits.size() <= 18 &&
        std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number) steps.push_back(std::stoll(digits));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void SaveTrainingCheckpoint(const fs::path& folder, const std::string& identity,
                            const TrainingState& state, TrainedWeights& weights,
                            Optimizer& optimizer, ThreadPool& pool) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw Error(ErrorCode::kIo,
                fmt::format("cannot make {}: {}", folder.string(), error.message()));
  }
  std::vector<Stretch> stretches = StretchesOf(weights, optimizer);
  const std::string text = nlohmann::json{
      {"version", 1},
      {"identity", identity},
      {"step", state.step},
      {"optimizer_steps", optimizer.steps()},
      {"epoch", state.position.epoch},
      {"next_document", state.position.next},
      {"average_loss", state.average_loss},
      {"rollbacks",
       state.rollbacks}}.dump();
  std::vector<uint8_t> bytes(text.begin(), text.end());
  stretches.push_back({"state", StoredType::kU8, bytes});
  Digest sum;
  for (const Stretch& stretch : stretches) sum.AddValues(std::span<const uint8_t>(stretch.bytes));
  const std::string hex = sum.Hex();
  std::vector<uint8_t> digest(hex.begin(), hex.end());
  stretches.push_back({"digest", StoredType::kU8, digest});
  std::vector<PlannedTensor> tensors;
  tensors.reserve(stretches.size());
  for (const Stretch& stretch : stretches) {
    tensors.push_back(
        {stretch.name,
         stretch.type,
         {static_cast<int64_t>(stretch.bytes.size()) / StoredTypeSize(stretch.type)}});
  }
  SaveSafetensors(
      TrainingCheckpointFile(folder, state.step), tensors,
      [&](const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) {
        const auto& found = stretches[static_cast<size_t>(&tensor - tensors.data())];
        std::memcpy(out.data(), found.bytes.data() + offset, out.size());
      },
      pool);
  SyncFolder(folder);
}

TrainingState LoadTrainingCheckpoint(const fs::path& folder, int64_t step,
                                     const std::string& identity, TrainedWeights& weights,
                                     Optimizer& optimizer) {
  const fs::path path = TrainingCheckpointFile(folder, step);
  const SafetensorsFile file(path);
  std::vector<Stretch> stretches = StretchesOf(weights, optimizer);
  Digest digest;
  for (const Stretch& stretch : stretches) {
    const StoredTensor* stored = file.Find(stretch.name);
    if (stored == nullptr || stored->bytes != static_cast<int64_t>(stretch.bytes.size()))
      Damaged(path, fmt::format("\"{}\" is missing or of a wrong size", stretch.name));
    digest.AddValues(std::span(stored->data, stretch.bytes.size()));
  }
  const StoredTensor* state_text = file.Find("state");
  if (state_text == nullptr) Damaged(path, "has no \"state\"");
  digest.AddValues(std::span(state_text->data, static_cast<size_t>(state_text->bytes)));
  const StoredTensor* sum = file.Find("digest");
  if (sum == nullptr || TextOf(*sum) != digest.Hex())
    Damaged(path, "its contents do not fit their checksum");

  const nlohmann::json json = ParseJson(TextOf(*state_text), path.string());
  TrainingState state;
  int64_t optimizer_steps = 0;
  try {
    if (json.at("version") != 1) Damaged(path, "is of a version that this program does not know");
    if (json.at("identity") != identity) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}: belongs to a run with another configuration or other data; give "
                              "this one another output folder, or remove the old one",
                              path.string()));
    }
    state.step = json.at("step");
    state.position = {json.at("epoch"), json.at("next_document")};
    state.average_loss = json.at("average_loss");
    state.rollbacks = json.at("rollbacks");
    optimizer_steps = json.at("optimizer_steps");
  } catch (const nlohmann::json::exception& error) {
    Damaged(path, fmt::format("its \"state\" is not readable ({})", error.what()));
  }
  // Whoever wrote the file may have computed a checksum over anything.
  if (state.step != step || state.position.epoch < 0 || state.position.next < 0 ||
      state.rollbacks < 0 || optimizer_steps < 0) {
    Damaged(path, "its \"state\" holds a number out of range, or of another step");
  }
  optimizer.set_steps(optimizer_steps);
  for (const Stretch& stretch : stretches)
    std::memcpy(stretch.bytes.data(), file.Find(stretch.name)->data, stretch.bytes.size());
  return state;
}

}  // namespace toaster
