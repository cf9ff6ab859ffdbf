#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>

#include "checkpoint/shard_index.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

using test::AsBytes;
using test::GoldenCheckpoint;
using test::MessageOf;
using test::Safetensors;
using test::TemporaryDirectory;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kTwo =
    R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]},)"
    R"("a":{"dtype":"F8_E8M0","shape":[3],"data_offsets":[0,3]},"__metadata__":{"x":"y"}})";

std::string MessageFor(std::string_view header, std::string_view data = "") {
  return MessageOf([&] {
    const std::string file = Safetensors(header, data);
    SafetensorsFile opened(AsBytes(file), "f");
  });
}

TEST(Safetensors, ReadsWhatTheHeaderSays) {
  const std::string bytes = Safetensors(kTwo, std::string("abc\0\0\x80?\0\0\0@", 11));
  const SafetensorsFile file(AsBytes(bytes), "f");
  ASSERT_EQ(file.tensors().size(), 2u);
  const StoredTensor* a = file.Find("a");
  const StoredTensor* b = file.Find("b");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_EQ(file.Find("c"), nullptr);
  EXPECT_EQ(file.Find("__metadata__"), nullptr);
  EXPECT_EQ(a->Description(), "F8_E8M0 [3]");
  EXPECT_EQ(b->Description(), "F32 [2, 1]");
  EXPECT_EQ(b->bytes, 8);
  EXPECT_EQ(b->offset, static_cast<int64_t>(bytes.size()) - 8);
  float values[2];
  std::memcpy(values, b->data, 8);
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f));
}

TEST(Safetensors, KnowsTheSizeOfEveryType) {
  const std::pair<const char*, int> types[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
      {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8}};
  for (const auto& [name, size] : types) {
    const std::string text =
        Safetensors(fmt::format(R"({{"t":{{"dtype":"{}","shape":[3],"data_offsets":[0,{}]}}}})",
                                name, 3 * size),
                    std::string(static_cast<size_t>(3 * size), 'x'));
    const SafetensorsFile file(AsBytes(text), "f");
    EXPECT_EQ(file.tensors()[0].bytes, 3 * size);
    EXPECT_EQ(file.tensors()[0].Description(), std::string(name) + " [3]");
  }
}

TEST(Safetensors, TakesScalarsAndEmptyTensorsAndPadding) {
  const std::string text =
      Safetensors(R"({"e":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[4,4]},)"
                  R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}    )",
                  "\0\0\0\0");
  EXPECT_EQ(MessageFor("{}"), "");
  const std::string whole = Safetensors(std::string_view(text).substr(8), std::string(4, '\0'));
  const SafetensorsFile file(AsBytes(whole), "f");
  EXPECT_EQ(file.Find("s")->bytes, 4);
  EXPECT_EQ(file.Find("e")->bytes, 0);
}

TEST(Safetensors, ReadsEveryGoldenCheckpoint) {
  for (const char* name : {"g1_minimal", "g2_all_kinds", "g4_fp8_experts"}) {
    DefectList defects;
    const SafetensorsFile file(GoldenCheckpoint(name) / "model.safetensors", &defects);
    EXPECT_GT(file.tensors().size(), 100u);
    EXPECT_THAT(defects, IsEmpty());
  }
}

TEST(Safetensors, NamesFilesThatAreNone) {
  const auto open = [](std::string_view bytes) {
    return MessageOf([&] { SafetensorsFile file(AsBytes(bytes), "f"); });
  };
  EXPECT_EQ(open(""), "f: 0 bytes, too short for a safetensors file; download it again");
  EXPECT_EQ(open("1234567"), "f: 7 bytes, too short for a safetensors file; download it again");
  EXPECT_EQ(open(std::string_view("\x03\0\0\0\0\0\0\0{}", 10)),
            "f: the header claims 3 bytes, but the file has 10; it is cut short or no safetensors "
            "file, download it again");
  EXPECT_THAT(open("\xff\xff\xff\xff\xff\xff\xff\xff"),
              HasSubstr("claims 18446744073709551615 bytes"));
  EXPECT_EQ(open(std::string(8, '\0')),
            "f: the header is not valid JSON at byte 9 of the file; download the file again");
  const TemporaryDirectory directory;
  EXPECT_THAT(MessageOf([&] { SafetensorsFile file(directory.path()); }),
              HasSubstr("not a regular file"));
  EXPECT_THAT(MessageOf([&] { SafetensorsFile file(directory.path() / "none"); }),
              HasSubstr("none: cannot open: No such file"));
}

TEST(Safetensors, RefusesHeadersOfAnotherShape) {
  const auto entry = [](const std::string& inner) { return MessageFor("{\"t\":" + inner + "}"); };
  const auto refused = [](const std::string& what) {
    return "f: the header's entry 't' has " + what +
           ", which the format does not allow; download the file again";
  };
  EXPECT_EQ(MessageFor("[]"),
            "f: the header has a list, which the format does not allow; download the file again");
  EXPECT_THAT(MessageFor("3"), HasSubstr("the header has the number 3"));
  EXPECT_EQ(entry("[]"), refused("a list"));
  EXPECT_EQ(entry("null"), refused("null"));
  EXPECT_EQ(entry("1.5"), refused("the number 1.5"));
  EXPECT_EQ(entry("{}"), refused("not all of dtype, shape and data_offsets"));
  EXPECT_EQ(entry(R"({"dtype":"F32","shape":[]})"),
            refused("not all of dtype, shape and data_offsets"));
  EXPECT_EQ(entry(R"({"dtype":"F32","dtype":"F32"})"), refused("two keys 'dtype'"));
  EXPECT_EQ(entry(R"({"dtypo":"F32"})"), refused("the key 'dtypo'"));
  EXPECT_EQ(entry(R"({"dtype":7})"), refused("the number 7"));
  EXPECT_EQ(entry(R"({"dtype":[]})"), refused("a list"));
  EXPECT_EQ(entry(R"({"dtype":{}})"), refused("an object"));
  EXPECT_EQ(entry(R"({"shape":[-1]})"), refused("the number -1"));
  EXPECT_EQ(entry(R"({"shape":[1e3]})"), refused("the number 1e3"));
  EXPECT_EQ(entry(R"({"shape":[[1]]})"), refused("a list"));
  EXPECT_EQ(entry(R"({"shape":["1"]})"), refused("a string"));
  EXPECT_EQ(entry(R"({"shape":[9223372036854775808]})"), refused("the number 9223372036854775808"));
  EXPECT_EQ(entry(R"({"shape":[1,1,1,1,1,1,1,1,1]})"), refused("more than eight dimensions"));
  EXPECT_EQ(entry(R"({"data_offsets":[0]})"), refused("fewer than two data_offsets"));
  EXPECT_EQ(entry(R"({"data_offsets":[0,1,2]})"), refused("more than two data_offsets"));
  EXPECT_THAT(MessageFor(R"({"__metadata__":{"a":1}})"),
              HasSubstr("'__metadata__' has the number"));
  EXPECT_THAT(MessageFor("{\"t\":{}"), HasSubstr("entry 't' has not all"));
  EXPECT_THAT(MessageFor("{\"t\n\":1}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(MessageFor("{\"t\\n\":1}"), HasSubstr("entry 't\\x0a' has"));
  EXPECT_THAT(MessageFor(std::string(100000, '[')), HasSubstr("the header has a list"));
}

TEST(Safetensors, RefusesTensorsThatCannotBe) {
  const auto tensor = [](const char* dtype, const char* shape, const char* range) {
    return MessageFor(fmt::format(R"({{"t":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype,
                                  shape, range),
                      "01234567");
  };
  EXPECT_EQ(tensor("F32", "[2]", "[0,8]"), "");
  EXPECT_EQ(tensor("Q4", "[2]", "[0,8]"),
            "f: tensor 't' has the unknown type 'Q4'; a newer version of this program may know it");
  EXPECT_EQ(
      tensor("F32", "[2]", "[0,7]"),
      "f: tensor 't', F32 [2], has the range 0 to 7, which is not its size; download the file "
      "again");
  EXPECT_THAT(tensor("F32", "[2]", "[8,0]"), HasSubstr("range 8 to 0, which is not its size"));
  EXPECT_THAT(tensor("F64", "[4611686018427387904,4]", "[0,0]"), HasSubstr("not its size"));
  EXPECT_THAT(tensor("U8", "[4294967296,4294967296]", "[0,0]"), HasSubstr("not its size"));
  EXPECT_THAT(tensor("U8", "[1]", "[9223372036854775806,9223372036854775807]"),
              HasSubstr("not its size"));
  EXPECT_EQ(tensor("F32", "[2]", "[1,9]"),
            "f: tensor 't' ends at byte 71, but the file has 70; it is cut short, download it "
            "again");
}

TEST(Safetensors, FindsOverlapsDuplicatesAndHoles) {
  const auto pair = [](const char* name, const char* range_a, const char* range_b) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                       R"("{}":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                       range_a, name, range_b);
  };
  const std::string data(12, 'x');
  EXPECT_EQ(MessageFor(pair("b", "[0,4]", "[4,8]"), data.substr(4)), "");
  EXPECT_EQ(MessageFor(pair("b", "[3,7]", "[0,4]"), data),
            "f: tensors 'b' and 'a' overlap; download the file again");
  EXPECT_EQ(MessageFor(pair("a", "[0,4]", "[4,8]"), data),
            "f: tensor 'a' stands twice in the header; download the file again");
  // Bytes of no tensor do not hinder reading, but are listed.
  const std::string holes = Safetensors(pair("b", "[1,5]", "[6,10]"), data);
  DefectList defects;
  EXPECT_EQ(SafetensorsFile(AsBytes(holes), "f").tensors().size(), 2u);
  EXPECT_EQ(SafetensorsFile(AsBytes(holes), "f", &defects).tensors().size(), 2u);
  EXPECT_THAT(
      defects,
      ElementsAre("f: 1 bytes in front of tensor 'a' belong to no tensor; download the file again",
                  "f: 1 bytes in front of tensor 'b' belong to no tensor; download the file again",
                  "f: the last 2 bytes belong to no tensor; download the file again"));
}

TEST(Safetensors, ListsAllDefectsWhenAsked) {
  const std::string file = Safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]},)"
                                       R"("c":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},)"
                                       R"("d":{"dtype":"U8","shape":[4],"data_offsets":[8,12]},)"
                                       R"("e":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}})",
                                       "123456789");
  DefectList defects;
  const SafetensorsFile opened(AsBytes(file), "f", &defects);
  EXPECT_THAT(defects, ElementsAre(HasSubstr("'a' and 'b' overlap"), HasSubstr("'d' ends at byte"),
                                   HasSubstr("'e' ends at byte")));
  EXPECT_EQ(opened.tensors().size(), 2u);
  EXPECT_THAT(opened.broken_names(), ElementsAre("b", "d", "e"));
}

// A file cut at any byte is recognised: all data belongs to some tensor.
TEST(Safetensors, RecognisesAFileCutAnywhere) {
  const std::string file = Safetensors(kTwo, "0123456789a");
  for (size_t cut = 0; cut < file.size(); ++cut) {
    const std::string message = MessageOf(
        [&] { SafetensorsFile opened(AsBytes(std::string_view(file).substr(0, cut)), "f"); });
    EXPECT_THAT(message, testing::AnyOf(HasSubstr("too short"), HasSubstr("cut short"))) << cut;
  }
}

// A flipped bit of the header either breaks the file or changes a name or the metadata: whatever is
// read keeps its bytes inside the file.
TEST(Safetensors, SurvivesEveryFlippedBitOfTheHeader) {
  const std::string file = Safetensors(kTwo, "0123456789a");
  int refused = 0, renamed = 0;
  for (size_t bit = 0; bit < (file.size() - 11) * 8; ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    try {
      const SafetensorsFile opened(AsBytes(flipped), "f");
      for (const StoredTensor& tensor : opened.tensors()) {
        EXPECT_LE(tensor.offset + tensor.bytes, static_cast<int64_t>(flipped.size()));
      }
      const bool same = opened.Find("a") != nullptr && opened.Find("b") != nullptr &&
                        opened.tensors().size() == 2;
      // "x" and "y" of the metadata are the only bytes that nobody reads.
      const char byte = file[bit / 8];
      EXPECT_TRUE(!same || byte == 'x' || byte == 'y') << bit << " " << flipped;
      ++renamed;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 15 * renamed);
}

TEST(ShardIndex, ReadsTheWeightMap) {
  const ShardIndex index = ParseShardIndex(
      R"({"metadata":{"total_size":5,"weight_map":{"q":1}},"list":[[1],{"a":null},true,-2,0.5],)"
      R"("weight_map":{"a":"one","b":"two","c":"one"}})",
      "i");
  EXPECT_THAT(index.files, ElementsAre("one", "two"));
  EXPECT_THAT(index.weight_map,
              testing::UnorderedElementsAre(testing::Pair("a", 0), testing::Pair("b", 1),
                                            testing::Pair("c", 0)));
}

TEST(ShardIndex, NamesWhatIsWrong) {
  const auto message = [](const std::string& text) {
    return MessageOf([&] { ParseShardIndex(text, "i"); });
  };
  EXPECT_EQ(message(""), "i: the index is not valid JSON at byte 1; download it again");
  EXPECT_EQ(message("{}"), "i: the index has no object 'weight_map'; download it again");
  EXPECT_EQ(message("[{\"weight_map\":{\"a\":\"b\"}}]"),
            "i: the index has no object 'weight_map'; download it again");
  EXPECT_EQ(message(R"({"weight_map":{}})"),
            "i: the index has an empty 'weight_map'; download it again");
  EXPECT_EQ(message(R"({"weight_map":{"a":"f"},"weight_map":{"b":"f"}})"),
            "i: the index has two keys 'weight_map'; download it again");
  EXPECT_EQ(message(R"({"weight_map":{"a":"f","a":"f"}})"),
            "i: the index names tensor 'a' twice; download it again");
  for (const char* value : {"1", "-1", "1.5", "true", "null", "[]", "{}"}) {
    EXPECT_THAT(message(fmt::format(R"({{"weight_map":{{"a":{}}}}})", value)),
                HasSubstr("instead of a file name for tensor 'a'"))
        << value;
  }
  for (const char* name : {"", ".", "..", "../f", "/etc/passwd", "a/b", "f\\u0000"}) {
    EXPECT_THAT(message(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", name)),
                HasSubstr("which is no file name in this directory"))
        << name;
  }
}

}  // namespace
}  // namespace toaster
