#include "checkpoint/model_location.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "checkpoint/load_weights.h"
#include "checkpoint/test_files.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;
using test::GoldenCheckpoint;
using test::MessageOf;
using test::TemporaryDirectory;
using test::WriteFile;
using testing::ElementsAre;

// Sets the four variables for one test; null unsets.
class Variables {
 public:
  Variables(const char* hub, const char* home, const char* xdg, const std::string& user) {
    Set("HF_HUB_CACHE", hub);
    Set("HF_HOME", home);
    Set("XDG_CACHE_HOME", xdg);
    Set("HOME", user.c_str());
  }
  ~Variables() {
    for (const auto& [name, value] : before_) {
      value ? setenv(name, value->c_str(), 1) : unsetenv(name);
    }
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  void Set(const char* name, const char* value) {
    const char* old = std::getenv(name);
    before_.emplace_back(name, old ? std::optional<std::string>(old) : std::nullopt);
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  std::vector<std::pair<const char*, std::optional<std::string>>> before_;
};

TEST(HuggingFaceCaches, FollowTheVariables) {
  {
    const Variables set("/hub", "~/hf", "/xdg", "/home/me");
    EXPECT_THAT(HuggingFaceCaches(), ElementsAre("/hub", "/home/me/hf/hub", "/xdg/huggingface/hub",
                                                 "/home/me/.cache/huggingface/hub"));
  }
  const Variables set(nullptr, "", nullptr, "/home/me");
  EXPECT_THAT(HuggingFaceCaches(), ElementsAre("/home/me/.cache/huggingface/hub"));
}

TEST(FindModel, TakesDirectoriesAndFilesOfACheckpoint) {
  const fs::path directory = GoldenCheckpoint("g1_minimal");
  EXPECT_EQ(FindModel(directory.string()), directory);
  EXPECT_EQ(FindModel((directory / "model.safetensors").string()), directory);
  EXPECT_EQ(FindModel((directory / "config.json").string()), directory);
  const TemporaryDirectory other;
  WriteFile(other.path() / "weights.gguf", "GGUF");
  EXPECT_EQ(MessageOf([&] { FindModel((other.path() / "weights.gguf").string()); }),
            (other.path() / "weights.gguf").string() + ": not a model; name its directory");
}

// The layout of the cache: blobs that snapshots link to, and references that name snapshots.
TEST(FindModel, ResolvesRepositoriesInTheCache) {
  const TemporaryDirectory user;
  const fs::path models = user.path() / ".cache/huggingface/hub/models--deepseek-ai--V4.x";
  for (const char* commit : {"0123abc", "4567def"}) {
    fs::create_directories(models / "snapshots" / commit);
  }
  fs::create_directories(models / "refs/refs/pr");
  fs::create_directories(models / "blobs");
  WriteFile(models / "refs/main", "0123abc\n");
  WriteFile(models / "refs/refs/pr/7", "4567def");
  for (const auto& entry : fs::directory_iterator(GoldenCheckpoint("g3_wide_two_shards"))) {
    const std::string name = entry.path().filename().string();
    fs::copy(entry.path(), models / "blobs" / ("blob-" + name));
    fs::create_symlink("../../blobs/blob-" + name, models / "snapshots/0123abc" / name);
  }
  const Variables set(nullptr, nullptr, nullptr, user.path());
  EXPECT_EQ(FindModel("deepseek-ai/V4.x"), models / "snapshots/0123abc");
  EXPECT_EQ(FindModel("deepseek-ai/V4.x@main"), models / "snapshots/0123abc");
  EXPECT_EQ(FindModel("deepseek-ai/V4.x@4567def"), models / "snapshots/4567def");
  EXPECT_EQ(FindModel("deepseek-ai/V4.x@refs/pr/7"), models / "snapshots/4567def");
  EXPECT_EQ(LoadModel(FindModel("deepseek-ai/V4.x")).config.hidden_size, 256);
  EXPECT_EQ(MessageOf([] { FindModel("deepseek-ai/V4.x@0123"); }),
            "deepseek-ai/V4.x@0123: no such directory, and no revision '0123' of it in the Hugging "
            "Face cache (looked in " +
                (models / "snapshots").string() + "); download it there or name a directory");
}

TEST(FindModel, SearchesEveryCache) {
  const TemporaryDirectory a, b;
  const fs::path snapshot = b.path() / "hub/models--o--n/snapshots/1";
  fs::create_directories(snapshot);
  fs::create_directories(b.path() / "hub/models--o--n/refs");
  WriteFile(b.path() / "hub/models--o--n/refs/main", "1");
  const Variables set(a.path().c_str(), b.path().c_str(), nullptr, a.path());
  EXPECT_EQ(FindModel("o/n"), snapshot);
}

TEST(FindModel, NamesWhatIsNoModel) {
  const TemporaryDirectory empty;
  const Variables set(nullptr, nullptr, nullptr, empty.path());
  for (const char* model : {"nothing", "", "/nothing/here", "a/b/c", "../a", "a/..", "a/b@",
                            "a/b@../../x", "a/b@/etc", "a b/c"}) {
    EXPECT_EQ(MessageOf([&] { FindModel(model); }),
              std::string(model) +
                  ": no such directory; name a model's directory or org/name in the Hugging Face "
                  "cache");
  }
}

}  // namespace
}  // namespace toaster
