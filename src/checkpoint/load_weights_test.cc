#include "checkpoint/load_weights.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "checkpoint/sparse_checkpoint.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using nlohmann::json;
using test::AsBytes;
using test::GoldenCheckpoint;
using test::MessageOf;
using test::ReadFile;
using test::Safetensors;
using test::TemporaryDirectory;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A golden checkpoint of one file, in memory and open to changes.
class Editable {
 public:
  explicit Editable(const std::string& set = "g1_minimal")
      : config(json::parse(ReadFile(GoldenCheckpoint(set) / "config.json"))) {
    const std::string file = ReadFile(GoldenCheckpoint(set) / "model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    header = json::parse(file.substr(8, length));
    data = file.substr(8 + length);
  }

  /// Where the data of a tensor begins.
  char* At(const std::string& name) {
    return data.data() + header.at(name)["data_offsets"][0].get<size_t>();
  }
  void Remove(const std::string& name) { ASSERT_EQ(header.erase(name), 1u); }
  /// Adds a tensor of zeros.
  void Add(const std::string& name, const char* dtype, const std::vector<int64_t>& shape,
           int64_t bytes) {
    header[name] = {{"dtype", dtype},
                    {"shape", shape},
                    {"data_offsets", {data.size(), data.size() + static_cast<size_t>(bytes)}}};
    data.append(static_cast<size_t>(bytes), '\0');
  }

  LoadedModel Load(DefectList* defects = nullptr) {
    file_ = Safetensors(header.dump(), data);
    return LoadModel(Checkpoint::InMemory(config.dump(), AsBytes(file_), "m"), defects);
  }

  json config;
  json header;
  std::string data;

 private:
  std::string file_;
};

std::string MessageAfter(const std::function<void(Editable&)>& change,
                         const std::string& set = "g1_minimal") {
  Editable model(set);
  change(model);
  return MessageOf([&] { model.Load(); });
}

TEST(LoadModel, ViewsTheGoldenCheckpointsInPlace) {
  for (const char* set : {"g1_minimal", "g2_all_kinds", "g3_wide_two_shards", "g4_fp8_experts"}) {
    const LoadedModel model = LoadModel(GoldenCheckpoint(set));
    EXPECT_THAT(model.notes, IsEmpty()) << set;
    EXPECT_EQ(model.config, model.checkpoint.config()) << set;
    size_t views = 0, scales = 0;
    ModelWeights weights = model.weights;
    VisitTensors(model.config, weights, [&](const TensorSpec& spec, auto& view) {
      const Checkpoint::Place place = model.checkpoint.Find(spec.name);
      ASSERT_NE(place.tensor, nullptr) << spec.name;
      EXPECT_EQ(view.data, place.tensor->data) << spec.name;
      ++views;
      if constexpr (std::is_same_v<std::decay_t<decltype(view)>, Matrix>) {
        EXPECT_EQ(view.data_bytes(), place.tensor->bytes) << spec.name;
        if (!view.quantised()) return;
        const Checkpoint::Place scale = model.checkpoint.Find(ScaleName(spec.name));
        ASSERT_NE(scale.tensor, nullptr) << spec.name;
        EXPECT_EQ(view.scales, scale.tensor->data) << spec.name;
        EXPECT_EQ(view.scale_bytes(), scale.tensor->bytes) << spec.name;
        CheckScales(view, spec.name);
        ++scales;
      }
    });
    EXPECT_EQ(views + scales, model.checkpoint.size()) << set;
  }
}

TEST(LoadModel, TakesTheFormatFromTheTensors) {
  const auto expert = [](const LoadedModel& model) {
    return model.weights.layers[1].ffn.experts[0].w2;
  };
  const Matrix packed = expert(LoadModel(GoldenCheckpoint("g1_minimal")));
  EXPECT_EQ(packed.format, NumberFormat::kE2m1);
  EXPECT_EQ(packed.scale_format, ScaleFormat::kE8m0);
  EXPECT_EQ(packed.columns, 128);
  const Matrix wide = expert(LoadModel(GoldenCheckpoint("g4_fp8_experts")));
  EXPECT_EQ(wide.format, NumberFormat::kE4m3);
  EXPECT_EQ(wide.scale_format, ScaleFormat::kFloat32);

  Editable misnamed;  // what config.json says about the experts does not count
  misnamed.config["expert_dtype"] = "fp8";
  misnamed.config.erase("quantization_config");
  const LoadedModel model = misnamed.Load();
  EXPECT_EQ(expert(model).format, NumberFormat::kE2m1);
  EXPECT_TRUE(model.config.quantised);
}

TEST(LoadModel, TakesPlainWeights) {
  Editable plain;
  const Config config = Config::Parse(plain.config.dump(), "");
  for (const TensorSpec& spec : ListTensors(config)) {
    if (spec.role != TensorRole::kLinear && spec.role != TensorRole::kExpertLinear) continue;
    plain.Remove(spec.name);
    plain.Remove(ScaleName(spec.name));
    plain.Add(spec.name, "BF16", {spec.rows, spec.columns}, 2 * spec.rows * spec.columns);
  }
  const LoadedModel model = plain.Load();
  EXPECT_FALSE(model.config.quantised);
  EXPECT_EQ(model.weights.layers[0].attn.wq_a.format, NumberFormat::kBf16);
  EXPECT_FALSE(model.weights.layers[2].ffn.experts[3].w1.quantised());
}

TEST(LoadModel, SurvivesBeingMoved) {
  LoadedModel model = LoadModel(GoldenCheckpoint("g3_wide_two_shards"));
  const LoadedModel moved = std::move(model);
  EXPECT_EQ(moved.weights.embed.data, moved.checkpoint.Find("embed.weight").tensor->data);
  EXPECT_EQ(moved.checkpoint.Find("embed.weight").shard->origin(),
            moved.checkpoint.ExpectedFile("embed.weight"));
}

TEST(LoadModel, NamesMissingAndMisfittingTensors) {
  EXPECT_EQ(MessageAfter([](Editable& m) { m.Remove("layers.2.attn.compressor.ape"); }),
            "m: tensor 'layers.2.attn.compressor.ape' is missing; download the checkpoint again, "
            "or take the config.json that belongs to it");
  EXPECT_THAT(MessageAfter([](Editable& m) { m.Remove("layers.0.attn.wq_a.scale"); }),
              HasSubstr("tensor 'layers.0.attn.wq_a.scale' is missing"));
  EXPECT_EQ(MessageAfter([](Editable& m) { m.config["vocab_size"] = 100; }),
            "m: tensor 'embed.weight' is BF16 [128, 128], but config.json makes it [100, 128]; "
            "take the config.json that belongs to the checkpoint");
  EXPECT_THAT(MessageAfter([](Editable& m) {
                m.header["norm.weight"]["shape"] = {128, 1};
              }),
              HasSubstr("tensor 'norm.weight' is BF16 [128, 1], but config.json makes it [128]"));
  EXPECT_EQ(MessageAfter([](Editable& m) { m.header["norm.weight"]["dtype"] = "F16"; }),
            "m: tensor 'norm.weight' is F16 [128], but should be BF16; convert the checkpoint to "
            "the official types");
  EXPECT_THAT(MessageAfter([](Editable& m) { m.header["hc_head_fn"]["dtype"] = "I32"; }),
              HasSubstr("tensor 'hc_head_fn' is I32 [4, 512], but should be F32"));
  EXPECT_THAT(
      MessageAfter([](Editable& m) { m.header["layers.0.attn.wq_a.weight"]["dtype"] = "I8"; }),
      HasSubstr("'layers.0.attn.wq_a.weight' is I8 [128, 128], but should be F8_E4M3 or BF16"));
  EXPECT_THAT(MessageAfter([](Editable& m) {
                m.header["layers.0.ffn.experts.1.w1.weight"]["dtype"] = "F8_E5M2";
              }),
              HasSubstr("but should be I8 or F8_E4M3 or BF16"));
  EXPECT_THAT(
      MessageAfter([](Editable& m) { m.header["layers.0.ffn.gate.tid2eid"]["dtype"] = "U64"; }),
      HasSubstr("'layers.0.ffn.gate.tid2eid' is U64 [128, 2], but should be I64"));
}

TEST(LoadModel, NamesMisfittingScales) {
  const std::string expert = "layers.1.ffn.experts.0.w1.scale";
  EXPECT_EQ(MessageAfter([&](Editable& m) {
              m.header[expert]["shape"] = {4, 128};
            }),
            "m: tensor 'layers.1.ffn.experts.0.w1.scale' is F8_E8M0 [4, 128], but config.json "
            "makes it [128, 4]; take the config.json that belongs to the checkpoint");
  EXPECT_THAT(MessageAfter([&](Editable& m) {
                m.Remove(expert);
                m.Add(expert, "F32", {128, 4}, 128 * 4 * 4);
              }),
              HasSubstr("is F32 [128, 4], but should be F8_E8M0"));
  EXPECT_THAT(MessageAfter([](Editable& m) {
                m.header["layers.1.attn.wo_b.scale"]["shape"] = json::array({1});
              }),
              HasSubstr("'layers.1.attn.wo_b.scale' is F8_E8M0 [1], but config.json makes it"));
  EXPECT_EQ(MessageAfter([](Editable& m) {
              m.Remove("layers.1.attn.wq_b.weight");
              m.Add("layers.1.attn.wq_b.weight", "BF16", {256, 128}, 2 * 256 * 128);
            }),
            "m: tensor 'layers.1.attn.wq_b.weight' is BF16, yet 'layers.1.attn.wq_b.scale' stands "
            "beside it; remove the scales");
}

TEST(LoadModel, RefusesScalesThatAreNoPowersOfTwo) {
  EXPECT_EQ(MessageAfter([](Editable& m) { m.At("layers.1.attn.wq_b.scale")[1] = '\xff'; }),
            "m: tensor 'layers.1.attn.wq_b.weight' has the scale NaN at [1, 0], which is no power "
            "of two; download the file again");
  // Scales of routed experts are left for the first use.
  Editable model;
  model.At("layers.1.ffn.experts.2.w3.scale")[5] = '\xff';
  const LoadedModel loaded = model.Load();
  EXPECT_EQ(
      MessageOf([&] { CheckScales(loaded.weights.layers[1].ffn.experts[2].w3, "m: tensor 'w3'"); }),
      "m: tensor 'w3' has the scale NaN at [1, 1], which is no power of two; download the "
      "file again");
  CheckScales(loaded.weights.layers[1].ffn.experts[2].w1, "w1");
}

TEST(CheckScales, TakesExactlyWhatUE8M0CanExpress) {
  float scales[2] = {1, 1};
  Matrix matrix;
  matrix.format = NumberFormat::kE4m3;
  matrix.scale_format = ScaleFormat::kFloat32;
  matrix.rows = 256;
  matrix.columns = 128;
  matrix.scales = reinterpret_cast<const uint8_t*>(scales);
  for (int byte = 0; byte < 255; ++byte) {
    scales[1] = E8m0ToFloat(static_cast<uint8_t>(byte));
    CheckScales(matrix, "w");
  }
  for (const float bad :
       {0.0f, -0.0f, -1.0f, 3.0f, 0x1.000002p0f, 0x1p-128f, 0x1.8p-127f, HUGE_VALF, NAN}) {
    scales[1] = bad;
    EXPECT_THAT(MessageOf([&] { CheckScales(matrix, "w"); }),
                HasSubstr(fmt::format("w has the scale {} at [1, 0]", bad)));
  }
  matrix.scale_format = ScaleFormat::kNone;
  CheckScales(matrix, "w");
}

TEST(LoadModel, ChecksHashRoutingTables) {
  for (const int64_t expert : {int64_t{4}, int64_t{-1}, int64_t{1} << 40}) {
    EXPECT_EQ(MessageAfter([&](Editable& m) {
                std::memcpy(m.At("layers.0.ffn.gate.tid2eid") + 8 * (2 * 77 + 1), &expert, 8);
              }),
              fmt::format("m: tensor 'layers.0.ffn.gate.tid2eid' sends token 77 to expert {}, but "
                          "there are 4; download the file again",
                          expert));
  }
}

// With a hidden size of 64, an attention matrix may be BF16 but not E4M3; wo_a may be either.
TEST(LoadModel, ChecksInputWidthsOfQuantisedMatrices) {
  Editable model;
  model.config.erase("quantization_config");
  model.config["o_lora_rank"] = 64;
  for (const char* block : {"layers.0.", "layers.1.", "layers.2.", "mtp.0."}) {
    for (const auto& [name, rows, columns] :
         {std::tuple("wo_a", 64, 256), std::tuple("wo_b", 128, 64)}) {
      const std::string full = fmt::format("{}attn.{}.weight", block, name);
      model.Remove(full);
      model.Remove(ScaleName(full));
      model.Add(full, "F8_E4M3", {rows, columns}, rows * columns);
      model.Add(ScaleName(full), "F8_E8M0", {1, (columns + 127) / 128}, (columns + 127) / 128);
    }
  }
  EXPECT_EQ(MessageOf([&] { model.Load(); }),
            "m: tensor 'layers.0.attn.wo_b.weight' is quantised, but 64 inputs are no multiple of "
            "128; store it as BF16");
}

TEST(LoadModel, TellsWhatItIgnores) {
  Editable model;
  model.config["new_key"] = 1;
  model.Add("mtp.0.embed.weight", "BF16", {2}, 4);
  model.Add("rotary.inv_freq", "F32", {2}, 8);
  model.Add("vision.tower", "F32", {2}, 8);
  EXPECT_THAT(model.Load().notes,
              ElementsAre("config.json: the key 'new_key' is unknown and ignored",
                          "1 tensors under mtp.* are not used",
                          "2 tensors are not used, the first of them 'rotary.inv_freq'"));
}

TEST(LoadModel, LeavesOutDSparkStages) {
  Editable model;
  model.Add("mtp.0.main_proj.weight", "F8_E4M3", {128, 384}, 128 * 384);
  for (const char* name : {"mtp.0.e_proj.weight", "mtp.0.e_proj.scale", "mtp.0.enorm.weight"}) {
    model.Remove(name);
  }
  const LoadedModel loaded = model.Load();
  EXPECT_EQ(loaded.config.num_nextn_predict_layers, 0);
  EXPECT_EQ(loaded.config.compress_ratios.size(), 3u);
  loaded.config.Validate("");
  EXPECT_TRUE(loaded.weights.drafts.empty());
  ASSERT_EQ(loaded.notes.size(), 2u);
  EXPECT_THAT(loaded.notes[0], HasSubstr("DSpark"));
  EXPECT_THAT(loaded.notes[1], HasSubstr("tensors under mtp.* are not used"));
}

TEST(LoadModel, LeavesOutDraftsThatTheConfigDoesNotMention) {
  Editable model;
  model.config.erase("num_nextn_predict_layers");
  const LoadedModel loaded = model.Load();
  EXPECT_TRUE(loaded.weights.drafts.empty());
  EXPECT_THAT(loaded.notes, ElementsAre(HasSubstr("tensors under mtp.* are not used")));
}

TEST(LoadModel, RefusesAConfigForMoreExpertsThanThereAreTensors) {
  EXPECT_THAT(MessageAfter([](Editable& m) { m.config["n_routed_experts"] = 16384; }),
              HasSubstr("m: config.json describes 196608 matrices of routed experts, but there are "
                        "only"));
}

TEST(LoadModel, ListsAllDefectsWhenAsked) {
  Editable model;
  model.Remove("norm.weight");
  model.header["embed.weight"]["dtype"] = "F16";
  model.Remove("mtp.0.h_proj.scale");
  DefectList defects;
  const LoadedModel loaded = model.Load(&defects);
  EXPECT_THAT(defects,
              ElementsAre(HasSubstr("'embed.weight' is F16"), HasSubstr("'norm.weight' is missing"),
                          HasSubstr("'mtp.0.h_proj.scale' is missing")));
  EXPECT_EQ(loaded.weights.embed.data, nullptr);
  EXPECT_NE(loaded.weights.head.data, nullptr);
}

// The seeds of load_model_fuzz reach every kind of block and of storage: each is a whole model once
// zeros stand for its data.
TEST(LoadModel, TakesTheSeedsOfItsFuzzer) {
  const auto seeds = std::filesystem::path(TOASTER_SOURCE_DIR) / "tests/fuzz_seeds/load_model_fuzz";
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(seeds)) {
    const std::string seed = ReadFile(entry.path());
    const size_t split = seed.find('\0');
    ASSERT_NE(split, std::string::npos) << entry.path();
    const std::string file = Safetensors(seed.substr(split + 1), std::string(600'000, '\0'));
    EXPECT_EQ(MessageOf([&] {
                LoadModel(Checkpoint::InMemory(seed.substr(0, split), AsBytes(file), "seed"));
              }),
              "")
        << entry.path();
    ++count;
  }
  EXPECT_EQ(count, 4);
}

class CheckpointDirectory : public testing::Test {
 protected:
  // Copies a golden checkpoint here; the file names are those of the released models.
  void Copy(const std::string& set) {
    for (const auto& entry : std::filesystem::directory_iterator(GoldenCheckpoint(set))) {
      std::filesystem::copy(entry.path(), path() / entry.path().filename());
    }
  }
  std::filesystem::path path() const { return directory_.path(); }
  std::string Message() const {
    return MessageOf([&] { LoadModel(path()); });
  }
  std::string Path(const std::string& file) const { return (path() / file).string(); }

  TemporaryDirectory directory_;
};

TEST_F(CheckpointDirectory, WithoutAModelIsNamed) {
  const std::string remedy = "; name a directory with config.json and model.safetensors or shards";
  EXPECT_EQ(Message(), path().string() + ": no model here: config.json is missing" + remedy);
  WriteFile(path() / "config.json", Config::Preset("tiny").ToJson());
  EXPECT_EQ(Message(), path().string() +
                           ": no model here: neither model.safetensors nor "
                           "model.safetensors.index.json is there" +
                           remedy);
  EXPECT_EQ(MessageOf([&] { LoadModel(path() / "none"); }),
            Path("none") + ": no model here: no such directory" + remedy);
  EXPECT_EQ(MessageOf([&] { LoadModel(path() / "config.json"); }),
            Path("config.json") + ": no model here: not a directory" + remedy);
}

TEST_F(CheckpointDirectory, WithAnUnreadableFileIsNamed) {
  Copy("g1_minimal");
  std::filesystem::remove(path() / "model.safetensors");
  std::filesystem::create_directory(path() / "model.safetensors");
  EXPECT_EQ(Message(), Path("model.safetensors") + ": not a regular file; name a file");
}

TEST_F(CheckpointDirectory, FollowsLinks) {
  for (const auto& entry :
       std::filesystem::directory_iterator(GoldenCheckpoint("g3_wide_two_shards"))) {
    std::filesystem::create_symlink(entry.path(), path() / entry.path().filename());
  }
  EXPECT_EQ(Message(), "");
}

TEST_F(CheckpointDirectory, WithAMissingShardIsNamed) {
  Copy("g3_wide_two_shards");
  std::filesystem::remove(path() / "model-00002-of-00002.safetensors");
  EXPECT_EQ(Message(), Path("model-00002-of-00002.safetensors") +
                           ": the index names this shard, but it is not there; download the rest "
                           "of the checkpoint");
  DefectList defects;
  const LoadedModel model = LoadModel(Checkpoint::Open(path(), &defects), &defects);
  EXPECT_EQ(defects.size(), 1u) << "what the shard held is not listed again";
}

TEST_F(CheckpointDirectory, WithAShardCutAnywhereIsNamed) {
  Copy("g3_wide_two_shards");
  const std::string shard = Path("model-00001-of-00002.safetensors");
  const std::string whole = ReadFile(shard);
  std::vector<size_t> cuts = {0, 7, 8, 9, 1000, whole.size() / 2, whole.size() - 1};
  for (size_t cut = 20000; cut < whole.size(); cut += 333333) cuts.push_back(cut);
  for (const size_t cut : cuts) {
    std::filesystem::remove(shard);
    WriteFile(shard, std::string_view(whole).substr(0, cut));
    EXPECT_THAT(Message(), testing::AllOf(testing::StartsWith(shard + ": "),
                                          testing::AnyOf(HasSubstr("too short"),
                                                         HasSubstr("it is cut short"))))
        << cut;
  }
}

TEST_F(CheckpointDirectory, WithAFlippedBitInAHeaderIsNamed) {
  Copy("g1_minimal");
  const std::string file = Path("model.safetensors");
  std::string bytes = ReadFile(file);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const std::string config = ReadFile(path() / "config.json");
  // All bits of the length and the first entry, and a sample of the rest.
  std::vector<size_t> bits;
  for (size_t bit = 0; bit < 8 * 48; ++bit) bits.push_back(bit);
  for (size_t bit = 8 * 48; bit < 8 * (8 + length); bit += 4001) bits.push_back(bit);
  for (const size_t bit : bits) {
    const auto flip = [&] { bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8)); };
    flip();
    const std::string message = MessageOf(
        [&] { LoadModel(Checkpoint::InMemory(config, AsBytes(bytes), "model.safetensors")); });
    EXPECT_THAT(message, testing::StartsWith("model.safetensors: ")) << bit;
    flip();
  }
}

TEST_F(CheckpointDirectory, ListsWhatTheIndexGetsWrong) {
  Copy("g3_wide_two_shards");
  json index = json::parse(ReadFile(path() / "model.safetensors.index.json"));
  json& map = index["weight_map"];
  const std::string first = "model-00001-of-00002.safetensors";
  const std::string second = "model-00002-of-00002.safetensors";
  ASSERT_EQ(map["embed.weight"], first);
  map["embed.weight"] = second;
  map.erase("norm.weight");
  map["extra.weight"] = first;
  WriteFile(path() / "model.safetensors.index.json", index.dump());
  EXPECT_EQ(Message(), Path(second) +
                           ": tensor 'embed.weight' is missing; download the checkpoint again, or "
                           "take the config.json that belongs to it");
  DefectList defects;
  const LoadedModel model = LoadModel(Checkpoint::Open(path(), &defects), &defects);
  EXPECT_THAT(
      defects,
      ElementsAre(
          Path(second) + ": tensor 'norm.weight' is not in the index; download "
                         "model.safetensors.index.json again",
          Path(first) + ": tensor 'embed.weight' is here, but the index puts it into " + second +
              "; download both again",
          Path(first) +
              ": tensor 'extra.weight' is not here, as the index says; download the shard again",
          HasSubstr("tensor 'norm.weight' is missing")));
}

TEST_F(CheckpointDirectory, ListsTensorsInTwoShards) {
  Copy("g3_wide_two_shards");
  const std::string second = Path("model-00002-of-00002.safetensors");
  const std::string file = ReadFile(second);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  json header = json::parse(file.substr(8, length));
  std::string data = file.substr(8 + length);
  header["embed.weight"] = {
      {"dtype", "U8"}, {"shape", {4}}, {"data_offsets", {data.size(), data.size() + 4}}};
  WriteFile(second, Safetensors(header.dump(), data + "0123"));
  EXPECT_EQ(Message(), "");
  DefectList defects;
  LoadModel(Checkpoint::Open(path(), &defects), &defects);
  EXPECT_THAT(defects,
              ElementsAre(second + ": tensor 'embed.weight' is here and in "
                                   "model-00001-of-00002.safetensors, where the index puts it; "
                                   "download both again"));
}

// Memory of this process that is in RAM.
int64_t ResidentBytes() {
  int64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// The 160 GB of DeepSeek-V4-Flash: what loading brings into memory is the list of 69,187 tensors
// (some hundred bytes each, more under a sanitizer) and the pages of 400 scale tensors and three
// routing tables of 6 MB each.
TEST_F(CheckpointDirectory, OfAnySizeIsOpenedWithoutReadingWeights) {
  test::WriteSparseCheckpoint(path(), Config::Preset("v4-flash"));
  const int64_t before = ResidentBytes();
  const LoadedModel model = LoadModel(path());
  EXPECT_EQ(model.checkpoint.size(), 69187u);
  EXPECT_EQ(model.checkpoint.shards().size(), 46u);
  EXPECT_THAT(model.notes, IsEmpty());
  EXPECT_LT(ResidentBytes() - before, 256 << 20);
}

}  // namespace
}  // namespace toaster
