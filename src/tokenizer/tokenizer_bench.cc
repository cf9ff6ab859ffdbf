// Speed of the tokenizer. TOASTER_BENCH_TOKENIZER names a tokenizer.json and TOASTER_BENCH_TEXTS a
// folder of .txt files (bench/tokenizer_speed.mjs sets both); without them there is nothing to
// measure.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tokenizer/split_words.h"
#include "tokenizer/tokenizer.h"

namespace toaster {
namespace {

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Load(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::Load(path));
}

void Encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> tokens;
  for (auto _ : state) {
    tokens.clear();
    tokenizer.Encode(text, ControlTokens::kAsText, tokens);
    benchmark::DoNotOptimize(tokens.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

void Split(benchmark::State& state, const std::string& text, WordSplitter::Engine engine) {
  const WordSplitter splitter(DeepSeekExpressions(), "benchmark", engine);
  std::vector<uint32_t> ends;
  for (auto _ : state) {
    ends.clear();
    splitter.Split(text, ends);
    benchmark::DoNotOptimize(ends.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

const bool registered = [] {
  const char* file = std::getenv("TOASTER_BENCH_TOKENIZER");
  const char* folder = std::getenv("TOASTER_BENCH_TEXTS");
  if (!file || !folder) return false;
  benchmark::RegisterBenchmark("TokenizerLoad", Load, std::string(file))
      ->Unit(benchmark::kMillisecond);
  const Tokenizer tokenizer = Tokenizer::Load(file);
  std::vector<std::filesystem::path> paths(std::filesystem::directory_iterator{folder}, {});
  std::sort(paths.begin(), paths.end());
  for (const std::filesystem::path& path : paths) {
    const std::string text = ReadFile(path).substr(0, 1 << 20);
    const std::string name = path.stem().string();
    benchmark::RegisterBenchmark(("TokenizerEncode/" + name).c_str(), Encode, tokenizer, text);
    benchmark::RegisterBenchmark(("WordSplitter/" + name).c_str(), Split, text,
                                 WordSplitter::Engine::kBest);
    benchmark::RegisterBenchmark(("WordSplitterPcre2/" + name).c_str(), Split, text,
                                 WordSplitter::Engine::kPcre2);
  }
  return true;
}();

}  // namespace
}  // namespace toaster
