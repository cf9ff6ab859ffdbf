#include "checkpoint/verify.h"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "checkpoint/save_weights.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::GoldenCheckpoint;
using test::ReadFile;
using test::Safetensors;
using test::TemporaryDirectory;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

// A copy of a golden checkpoint that can be damaged file by file.
class VerifyCheckpointTest : public testing::Test {
 protected:
  void Copy(const std::string& set) {
    for (const auto& entry : fs::directory_iterator(GoldenCheckpoint(set))) {
      fs::copy(entry.path(), Path(entry.path().filename().string()));
    }
  }
  fs::path Path(const std::string& file) const { return directory_.path() / file; }
  std::string Named(const std::string& file, const std::string& message) const {
    return Path(file).string() + ": " + message;
  }
  VerifyReport Verify() const {
    ThreadPool pool(2);
    return VerifyCheckpoint(directory_.path(), pool);
  }

  /// Rewrites a file after a change of its header and data.
  template <typename Change>
  void Edit(const std::string& file, Change change) {
    const std::string bytes = ReadFile(Path(file));
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    json header = json::parse(bytes.substr(8, length));
    std::string data = bytes.substr(8 + length);
    change(header, data);
    WriteFile(Path(file), Safetensors(header.dump(), data));
  }
  /// Puts `value` at element `index` of a tensor.
  template <typename T>
  void Put(const std::string& file, const std::string& tensor, size_t index, T value) {
    Edit(file, [&](json& header, std::string& data) {
      const auto begin = header.at(tensor)["data_offsets"][0].get<size_t>();
      std::memcpy(data.data() + begin + index * sizeof(T), &value, sizeof(T));
    });
  }

  TemporaryDirectory directory_;
};

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";

TEST_F(VerifyCheckpointTest, FindsTheGoldenCheckpointsSound) {
  for (const char* set : {"g1_minimal", "g2_all_kinds", "g3_wide_two_shards", "g4_fp8_experts"}) {
    ThreadPool pool(2);
    int64_t last = 0;
    const VerifyReport report =
        VerifyCheckpoint(GoldenCheckpoint(set), pool, [&](int64_t read, int64_t total) {
          EXPECT_GT(read, last);
          EXPECT_LE(read, total);
          last = read;
        });
    EXPECT_THAT(report.defects, IsEmpty());
    EXPECT_THAT(report.notes, IsEmpty());
    EXPECT_EQ(report.bytes, last);
    EXPECT_GT(report.tensors, 200);
  }
}

TEST_F(VerifyCheckpointTest, FindsBadNumbersOfEveryType) {
  Copy("g1_minimal");
  Put<uint8_t>(kSingle, "layers.0.attn.wq_a.weight", 77, 0x7F);
  Put<uint8_t>(kSingle, "layers.0.attn.wq_a.weight", 99, 0xFF);
  Put<uint16_t>(kSingle, "embed.weight", 5, 0x7F80);  // infinity
  Put<uint16_t>(kSingle, "head.weight", 6, 0xFFC1);   // NaN
  Put<float>(kSingle, "hc_head_fn", 7, -HUGE_VALF);
  Put<float>(kSingle, "layers.2.attn.attn_sink", 1, NAN);
  Put<uint8_t>(kSingle, "layers.1.attn.wo_b.scale", 0, 255);
  Put<uint8_t>(kSingle, "layers.1.ffn.experts.3.w2.scale", 8, 255);
  const std::string again = "; download the file again";
  const std::string numbers = "numbers that are NaN or infinite, the first at element ";
  const std::string scales = "scales that are no powers of two, the first at element ";
  EXPECT_THAT(
      Verify().defects,
      UnorderedElementsAre(
          Named(kSingle, "tensor 'layers.0.attn.wq_a.weight' has 2 " + numbers + "77" + again),
          Named(kSingle, "tensor 'embed.weight' has 1 " + numbers + "5" + again),
          Named(kSingle, "tensor 'head.weight' has 1 " + numbers + "6" + again),
          Named(kSingle, "tensor 'hc_head_fn' has 1 " + numbers + "7" + again),
          Named(kSingle, "tensor 'layers.2.attn.attn_sink' has 1 " + numbers + "1" + again),
          Named(kSingle, "tensor 'layers.1.attn.wo_b.scale' has 1 " + scales + "0" + again),
          Named(kSingle,
                "tensor 'layers.1.ffn.experts.3.w2.scale' has 1 " + scales + "8" + again)));
}

TEST_F(VerifyCheckpointTest, FindsFloatScalesThatAreNoPowersOfTwo) {
  Copy("g4_fp8_experts");
  Put<float>(kSingle, "layers.2.ffn.experts.4.w1.scale", 0, 0.75f);
  EXPECT_THAT(Verify().defects,
              ElementsAre(Named(kSingle,
                                "tensor 'layers.2.ffn.experts.4.w1.scale' has 1 scales that are no "
                                "powers of two, the first at element 0; download the file again")));
}

TEST_F(VerifyCheckpointTest, FindsExpertsOutOfRange) {
  Copy("g1_minimal");
  Put<int64_t>(kSingle, "layers.0.ffn.gate.tid2eid", 9, 4);
  EXPECT_THAT(Verify().defects,
              ElementsAre(Named(kSingle,
                                "tensor 'layers.0.ffn.gate.tid2eid' sends token 4 to expert 4, but "
                                "there are 4; download the file again")));
}

TEST_F(VerifyCheckpointTest, FindsTheFirstOfManyAcrossPieces) {
  Config config = Config::Preset("tiny");
  config.vocab_size = 20000;  // an embedding of ten megabytes, three pieces
  config.num_nextn_predict_layers = 0;
  config.num_hidden_layers = 1;
  config.num_hash_layers = 0;
  config.compress_ratios = {0};
  config.index_n_heads = config.index_head_dim = config.index_topk = 0;
  ThreadPool pool(2);
  SaveCheckpoint(
      directory_.path(), config, SingleFile(config),
      [](const PlannedTensor& tensor, int64_t, std::span<std::byte> out) {
        const bool bad = tensor.name == "embed.weight";
        std::memset(out.data(), bad ? 0xFF : 0, out.size());
      },
      pool);
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr("'embed.weight' has 5120000 numbers that are "
                                                      "NaN or infinite, the first at element 0")));
  Put<uint16_t>(kSingle, "embed.weight", 0, 0);
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr("has 5119999 numbers that are NaN or "
                                                      "infinite, the first at element 1;")));
}

TEST_F(VerifyCheckpointTest, ListsStructuralDefectsTogether) {
  Copy("g3_wide_two_shards");
  Edit(kFirst, [](json& header, std::string& data) {
    header.erase("layers.0.attn.kv_norm.weight");         // a hole, and missing
    header["layers.0.attn.attn_sink"]["shape"] = {2, 2};  // misshapen
    header["head.weight"]["dtype"] = "F16";               // wrong type
    const auto begin = header["layers.0.attn.compressor.ape"]["data_offsets"][0].get<int>();
    header["layers.0.ffn.gate.bias"]["data_offsets"] = {begin + 4, begin + 24};  // overlapping
    data += "tail";
  });
  fs::resize_file(Path(kSecond), fs::file_size(Path(kSecond)) - 1);
  const DefectList defects = Verify().defects;
  const auto has = [&](const std::string& file, const std::string& part) {
    return testing::Contains(
        testing::AllOf(testing::StartsWith(Path(file).string() + ": "), HasSubstr(part)));
  };
  EXPECT_THAT(defects, has(kFirst, "belong to no tensor"));
  EXPECT_THAT(defects, has(kFirst, "the last 4 bytes belong to no tensor"));
  EXPECT_THAT(defects,
              has(kFirst, "'layers.0.attn.kv_norm.weight' is not here, as the index says"));
  EXPECT_THAT(defects, has(kFirst,
                           "'layers.0.attn.attn_sink' is F32 [2, 2], but config.json makes "
                           "it [4]"));
  EXPECT_THAT(defects, has(kFirst, "'head.weight' is F16 [203, 256], but should be BF16"));
  EXPECT_THAT(defects,
              has(kFirst, "'layers.0.attn.compressor.ape' and 'layers.0.ffn.gate.bias' overlap"));
  EXPECT_THAT(defects, has(kSecond, "it is cut short"));
  // Each once: what is broken is not reported as missing again.
  EXPECT_THAT(defects, testing::Each(testing::Not(HasSubstr("is missing"))));
  for (const std::string& defect : defects) {
    EXPECT_EQ(std::count(defects.begin(), defects.end(), defect), 1) << defect;
    EXPECT_THAT(defect, testing::MatchesRegex(".*; .*")) << "has no remedy";
  }
}

TEST_F(VerifyCheckpointTest, NamesTensorsThatBelongNowhere) {
  Copy("g1_minimal");
  Edit(kSingle, [](json& header, std::string& data) {
    for (const char* name : {"old.weight", "mtp.0.embed.weight"}) {
      header[name] = {
          {"dtype", "U8"}, {"shape", {4}}, {"data_offsets", {data.size(), data.size() + 4}}};
      data += "0123";
    }
  });
  const VerifyReport report = Verify();
  EXPECT_THAT(report.defects,
              ElementsAre(Named(kSingle,
                                "tensor 'old.weight' is no part of the model; take the config.json "
                                "that belongs to the checkpoint")));
  EXPECT_THAT(report.notes, testing::Contains("1 tensors under mtp.* are not used"));
}

TEST_F(VerifyCheckpointTest, GoesOnWithoutABrokenShard) {
  Copy("g3_wide_two_shards");
  WriteFile(Path(kFirst), "no shard");
  Put<uint16_t>(kSecond, "norm.weight", 3, 0x7FFF);
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr(std::string(kFirst) + ": the header claims"),
                                            HasSubstr("'norm.weight' has 1 numbers")));
  fs::remove(Path(kFirst));
  EXPECT_THAT(Verify().defects,
              ElementsAre(HasSubstr("the index names this shard, but it is not there"),
                          HasSubstr("'norm.weight' has 1 numbers")));
}

TEST_F(VerifyCheckpointTest, SaysOnceWhatStopsIt) {
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr("no model here")));
  Copy("g3_wide_two_shards");
  WriteFile(Path("model.safetensors.index.json"), "{");
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr("the index is not valid JSON")));
  fs::remove(Path("model.safetensors.index.json"));
  WriteFile(Path(kSingle), "");
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr("too short for a safetensors file")));
  WriteFile(Path("config.json"), "{}");
  EXPECT_THAT(Verify().defects, ElementsAre(HasSubstr("key 'scoring_func' is missing")));
}

}  // namespace
}  // namespace toaster
