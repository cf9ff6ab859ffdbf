#include "checkpoint/save_weights.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>

#include "checkpoint/load_weights.h"
#include "checkpoint/random_weights.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;
using test::MessageOf;
using test::ReadFile;
using test::TemporaryDirectory;
using test::WriteFile;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::vector<std::string> FilesIn(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TensorSource SourceOf(const RandomWeights& weights) {
  return [&](const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) {
    weights.Fill(tensor, offset, out);
  };
}

void Save(const fs::path& directory, const Config& config, const std::vector<PlannedFile>& files,
          uint64_t seed = 1, int threads = 2) {
  ThreadPool pool(threads);
  const RandomWeights weights(config, seed);
  SaveCheckpoint(directory, config, files, SourceOf(weights), pool);
}

// What is written can be read: every tensor where it should be, nothing else, no bytes to spare.
TEST(SaveCheckpoint, WritesWhatLoadingReads) {
  const Config tiny = Config::Preset("tiny");
  Config base = tiny, plain = tiny;
  base.expert_dtype = "fp8";
  plain.quantised = false;
  for (const Config& config : {tiny, base, plain}) {
    for (const auto& files : {SingleFile(config), OfficialShards(config)}) {
      const TemporaryDirectory directory;
      Save(directory.path() / "new/model", config, files);
      DefectList defects;
      const LoadedModel model =
          LoadModel(Checkpoint::Open(directory.path() / "new/model", &defects), &defects);
      EXPECT_THAT(defects, IsEmpty());
      EXPECT_THAT(model.notes, IsEmpty());
      EXPECT_EQ(model.config, config);
      EXPECT_EQ(model.checkpoint.shards().size(), files.size());
    }
  }
}

TEST(SaveCheckpoint, ReportsProgressToTheEnd) {
  const TemporaryDirectory directory;
  const Config config = Config::Preset("tiny");
  const RandomWeights weights(config, 1);
  ThreadPool pool(3);
  int64_t last = 0, in_all = 0;
  SaveCheckpoint(directory.path(), config, SingleFile(config), SourceOf(weights), pool,
                 [&](int64_t written, int64_t total) {
                   EXPECT_GT(written, last);
                   last = written;
                   in_all = total;
                 });
  EXPECT_EQ(last, in_all);
  EXPECT_EQ(in_all, SingleFile(config)[0].bytes());
}

TEST(SaveCheckpoint, ReplacesAnOldCheckpoint) {
  const TemporaryDirectory directory;
  const Config config = Config::Preset("tiny");
  Save(directory.path(), config, OfficialShards(config));
  WriteFile(directory.path() / "notes.txt", "mine");
  Save(directory.path(), config, SingleFile(config));
  EXPECT_EQ(LoadModel(directory.path()).checkpoint.shards().size(), 1u);
  EXPECT_TRUE(fs::exists(directory.path() / "notes.txt"));
}

// A limit on the size of files stands in for a full disk.
TEST(SaveCheckpoint, NamesTheFileThatDoesNotFit) {
  const TemporaryDirectory directory;
  const Config config = Config::Preset("tiny");
  WriteFile(directory.path() / "config.json", "old");
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message =
      MessageOf([&] { Save(directory.path(), config, SingleFile(config)); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, testing::StartsWith((directory.path() / "model.safetensors").string() +
                                           ": cannot reserve "));
  EXPECT_THAT(message, HasSubstr("File too large"));
  EXPECT_THAT(FilesIn(directory.path()), IsEmpty()) << "neither the old config nor a partial file";
}

TEST(SaveCheckpoint, LeavesNothingBehindWhenTheSourceFails) {
  const TemporaryDirectory directory;
  const Config config = Config::Preset("tiny");
  ThreadPool pool(2);
  EXPECT_EQ(MessageOf([&] {
              SaveCheckpoint(
                  directory.path(), config, OfficialShards(config),
                  [](const PlannedTensor& tensor, int64_t, std::span<std::byte>) {
                    if (tensor.name == "layers.0.attn_norm.weight") {
                      throw Error(ErrorCode::kCancelled, "stopped");
                    }
                  },
                  pool);
            }),
            "stopped");
  EXPECT_THAT(FilesIn(directory.path()), UnorderedElementsAre("model-00001-of-00007.safetensors"));
}

TEST(SaveCheckpoint, NamesAPlaceThatIsNoDirectory) {
  const TemporaryDirectory directory;
  WriteFile(directory.path() / "file", "");
  const Config config = Config::Preset("tiny");
  EXPECT_THAT(MessageOf([&] { Save(directory.path() / "file/x", config, SingleFile(config)); }),
              HasSubstr("cannot make the directory"));
}

TEST(SaveCheckpoint, RefusesWhatDoesNotFitOnTheDisk) {
  const TemporaryDirectory directory;
  PlannedFile huge{"model.safetensors",
                   {{"embed.weight", StoredType::kBf16, {int64_t{1} << 40, 1 << 10}}}};
  const Config config = Config::Preset("tiny");
  EXPECT_THAT(MessageOf([&] { Save(directory.path(), config, {huge}); }),
              HasSubstr("takes 2251799.8 GB, but only"));
  EXPECT_THAT(FilesIn(directory.path()), IsEmpty());
}

TEST(RandomWeights, DependOnSeedAndPlaceAlone) {
  const Config config = Config::Preset("tiny");
  const RandomWeights one(config, 1), other(config, 2);
  const PlannedFile file = SingleFile(config)[0];
  for (const PlannedTensor& tensor : file.tensors) {
    std::vector<std::byte> whole(static_cast<size_t>(tensor.bytes())), pieces = whole,
                                                                       another = whole;
    one.Fill(tensor, 0, whole);
    other.Fill(tensor, 0, another);
    const std::span<std::byte> out(pieces);
    for (size_t at = 0; at < out.size(); at += 192) {
      one.Fill(tensor, static_cast<int64_t>(at),
               out.subspan(at, std::min<size_t>(192, out.size() - at)));
    }
    EXPECT_EQ(whole, pieces) << tensor.name;
    if (whole.size() > 16) {
      EXPECT_NE(whole, another) << tensor.name;
    }
  }
}

// Root mean square of the rows of a linear layer, times sqrt(inputs): the gain of the layer. A
// matrix of n independent draws misses its gain by about 1/sqrt(n), 0.01 and less here, FP4 ones,
// whose scales are drawn per 32 numbers, by 0.03. Of an E4M3 matrix with few tiles it is only known
// that every scale is one of the two powers of two around the right one.
TEST(RandomWeights, RowsOfLinearLayersHaveUnitGain) {
  const TemporaryDirectory directory;
  Config config = Config::Preset("tiny");
  Save(directory.path(), config, SingleFile(config));
  const LoadedModel model = LoadModel(directory.path());
  const auto gain = [](const Matrix& m) {
    double squares = 0;
    for (int64_t row = 0; row < m.rows; ++row) {
      for (int64_t column = 0; column < m.columns; ++column) {
        const uint8_t* data = m.data + row * m.row_bytes();
        double value = 0;
        if (m.format == NumberFormat::kE4m3) {
          value = E4m3ToFloat(data[column]) *
                  E8m0ToFloat(m.scales[row / 128 * m.scale_columns() + column / 128]);
        } else if (m.format == NumberFormat::kE2m1) {
          value = E2m1ToFloat(data[column / 2] >> (column % 2 * 4) & 15) *
                  E8m0ToFloat(m.scales[row * m.scale_columns() + column / 32]);
        } else {
          value = Bf16ToFloat(LoadUnaligned<uint16_t>(data + 2 * column));
        }
        squares += value * value;
      }
    }
    return std::sqrt(squares / static_cast<double>(m.rows));
  };
  const BlockWeights& layer = model.weights.layers[1];
  EXPECT_NEAR(gain(layer.ffn.experts[0].w1), 1.4, 0.05);
  EXPECT_NEAR(gain(layer.ffn.experts[3].w2), 0.3, 0.02);
  EXPECT_THAT(gain(layer.attn.wq_b), testing::AllOf(testing::Gt(0.5), testing::Lt(2.0)));
  EXPECT_NEAR(gain(layer.ffn.gate), 1.0, 0.1);
  EXPECT_NEAR(gain(model.weights.head), 1.5, 0.05);
  EXPECT_NEAR(gain(model.weights.embed), 0.8 * 16, 0.2);
  for (const BlockWeights& block : model.weights.layers) {
    for (const ExpertWeights& expert : block.ffn.experts) CheckScales(expert.w1, "w1");
  }
}

TEST(RandomWeights, SendEveryTokenToDifferentExperts) {
  const TemporaryDirectory directory;
  Config config = Config::Preset("tiny");
  config.n_routed_experts = 3;
  config.num_experts_per_tok = 3;
  Save(directory.path(), config, SingleFile(config));
  const LoadedModel model = LoadModel(directory.path());
  const IndexTable& table = model.weights.layers[0].ffn.tid2eid;
  for (int64_t row = 0; row < table.rows; ++row) {
    EXPECT_THAT((std::vector{table.At(row, 0), table.At(row, 1), table.At(row, 2)}),
                UnorderedElementsAre(0, 1, 2));
  }
}

}  // namespace
}  // namespace toaster
