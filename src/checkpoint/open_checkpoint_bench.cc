// How long opening takes: DeepSeek-V4-Flash's 46 shards with their 69,187 tensors, as sparse files
// of the true sizes, all pages cached.

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>

#include "base/check.h"
#include "checkpoint/load_weights.h"
#include "checkpoint/sparse_checkpoint.h"

namespace toaster {
namespace {

class SparseFlash {
 public:
  SparseFlash() {
    std::string pattern = (std::filesystem::temp_directory_path() / "toaster-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    test::WriteSparseCheckpoint(path_, Config::Preset("v4-flash"));
  }
  ~SparseFlash() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  SparseFlash(const SparseFlash&) = delete;
  SparseFlash& operator=(const SparseFlash&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void BM_OpenFlash(benchmark::State& state) {
  const SparseFlash flash;
  for (auto _ : state) benchmark::DoNotOptimize(Checkpoint::Open(flash.path()));
}
BENCHMARK(BM_OpenFlash)->Unit(benchmark::kMillisecond);

void BM_OpenAndLoadFlash(benchmark::State& state) {
  const SparseFlash flash;
  for (auto _ : state) benchmark::DoNotOptimize(LoadModel(flash.path()));
}
BENCHMARK(BM_OpenAndLoadFlash)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace toaster
