// The same answer, always: logits and caches are bitwise equal whatever the chunks of the prefill,
// the threads, the kernel table, the backend and the company in the batch.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/random.h"
#include "base/temporary_directory.h"
#include "checkpoint/random_weights.h"
#include "checkpoint/save_weights.h"
#include "engine/running_model.h"
#include "golden_set.h"

namespace toaster {
namespace {

constexpr int64_t kAtOnce = 1 << 20;

std::vector<int32_t> RandomTokens(const Config& config, int64_t count, uint64_t seed) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(Philox(seed, static_cast<uint64_t>(i), 0)[0] %
                                          static_cast<uint64_t>(config.vocab_size)));
  }
  return tokens;
}

// What a prompt leaves behind: the logits of every row, and the cache.
struct Outcome {
  std::string logits;
  std::string cache;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << "logits " << outcome.logits << ", cache " << outcome.cache;
}

Outcome RunPrompt(RunningModel& running, const std::vector<int32_t>& tokens, int64_t chunk) {
  Model& model = running.model();
  const auto cache = model.NewCache();
  Digest digest;
  Tensor streams, logits;
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(chunk)) {
    const size_t count = std::min(static_cast<size_t>(chunk), tokens.size() - begin);
    const SequenceChunk part{std::span(tokens).subspan(begin, count), cache.get()};
    model.Forward({&part, 1}, streams);
    model.Logits(streams, logits);
    digest.AddValues(logits.values());
  }
  return {digest.Hex(), cache->DigestHex(running.config(), running.backend())};
}

BackendOptions Cpu(const std::string& table, int threads) {
  return {"cpu", table, threads, Numerics::kOfficial};
}

// A model with the head sizes of Flash (64 heads of 512, 64 index heads of 128) and little else,
// written once per process.
const std::filesystem::path& FlashHeads() {
  static const std::filesystem::path folder = [] {
    Config config = Config::Preset("v4-flash");
    config.hidden_size = 512;
    config.vocab_size = 512;
    config.num_hidden_layers = 3;
    config.num_hash_layers = 1;
    config.compress_ratios = {0, 4, 128, 0};
    config.q_lora_rank = 128;
    config.o_lora_rank = 128;
    config.moe_intermediate_size = 128;
    config.n_routed_experts = 8;
    config.num_experts_per_tok = 3;
    config.index_topk = 24;
    config.expert_dtype = "fp4";
    config.Validate("flash heads");
    static const test::TemporaryDirectory temporary;
    const std::filesystem::path path = temporary.path() / "flash_heads";
    ThreadPool pool(1);
    const RandomWeights weights(config, 11);
    SaveCheckpoint(
        path, config, SingleFile(config),
        [&](const PlannedTensor& tensor, int64_t offset, std::span<std::byte> out) {
          weights.Fill(tensor, offset, out);
        },
        pool);
    return path;
  }();
  return folder;
}

std::filesystem::path ModelFolder(const std::string& name) {
  return name == "flash_heads" ? FlashHeads() : GoldenSet::Folder(name) / "checkpoint";
}

class InvarianceTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<RunningModel> Start(const BackendOptions& options) const {
    return std::make_unique<RunningModel>(LoadModel(ModelFolder(GetParam())), options);
  }
  int64_t PromptLength() const { return GetParam() == "flash_heads" ? 140 : 270; }
};

TEST_P(InvarianceTest, ChunksDoNotShow) {
  const auto running = Start(Cpu("", 2));
  const std::vector<int32_t> tokens = RandomTokens(running->config(), PromptLength(), 1);
  const Outcome whole = RunPrompt(*running, tokens, kAtOnce);
  for (const int64_t chunk : {1, 2, 3, 5, 7, 64, 127, 128, 129}) {
    EXPECT_EQ(RunPrompt(*running, tokens, chunk), whole) << "chunks of " << chunk;
  }
}

TEST_P(InvarianceTest, ThreadsKernelsAndBackendDoNotShow) {
  const auto reference = Start({"reference", "", 0, Numerics::kOfficial});
  const std::vector<int32_t> tokens = RandomTokens(reference->config(), PromptLength() / 2, 2);
  const Outcome expected = RunPrompt(*reference, tokens, kAtOnce);
  for (const std::string& table : RunnableKernels()) {
    for (const int threads : {1, 2, 3}) {
      const auto running = Start(Cpu(table, threads));
      EXPECT_EQ(RunPrompt(*running, tokens, kAtOnce), expected)
          << table << ", " << threads << " threads";
      EXPECT_EQ(RunPrompt(*running, tokens, 33), expected)
          << table << ", " << threads << " threads, chunks of 33";
    }
  }
}

// Sequences of different lengths, some in prefill and some in decode, share steps.
TEST_P(InvarianceTest, CompanyInTheBatchDoesNotShow) {
  const auto running = Start(Cpu("", 2));
  Model& model = running->model();
  const std::vector<int64_t> lengths = {40, 131, 7, 66};
  const std::vector<int64_t> paces = {1, 50, 3, 20};  // tokens per step
  struct Sequence {
    std::vector<int32_t> tokens;
    std::unique_ptr<SequenceCache> cache;
    Digest digest;
    size_t done = 0;
  };
  std::vector<Sequence> sequences(lengths.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i].tokens = RandomTokens(running->config(), lengths[i], 10 + i);
    sequences[i].cache = model.NewCache();
  }
  Tensor streams, logits;
  for (;;) {
    std::vector<SequenceChunk> chunks;
    std::vector<size_t> members;
    for (size_t i = 0; i < sequences.size(); ++i) {
      Sequence& sequence = sequences[i];
      const size_t count =
          std::min(static_cast<size_t>(paces[i]), sequence.tokens.size() - sequence.done);
      if (count == 0) continue;
      chunks.push_back(
          {std::span(sequence.tokens).subspan(sequence.done, count), sequence.cache.get()});
      members.push_back(i);
    }
    if (chunks.empty()) break;
    model.Forward(chunks, streams);
    model.Logits(streams, logits);
    int64_t row = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const auto rows = static_cast<int64_t>(chunks[i].tokens.size());
      sequences[members[i]].digest.AddValues(
          std::span<const float>(logits.Row(row), static_cast<size_t>(rows * logits.width())));
      sequences[members[i]].done += chunks[i].tokens.size();
      row += rows;
    }
  }
  for (Sequence& sequence : sequences) {
    const Outcome together{sequence.digest.Hex(),
                           sequence.cache->DigestHex(running->config(), running->backend())};
    EXPECT_EQ(together, RunPrompt(*running, sequence.tokens, kAtOnce));
  }
}

TEST_P(InvarianceTest, PassesThatTakeTurnsChangeNothing) {
  const auto running = Start(Cpu("", 2));
  Model& model = running->model();
  // A pass under way, and after each half of a layer a whole other one over the next tokens of
  // a second sequence, and half a layer of a third's; then the first is taken back and run again.
  const std::vector<int32_t> slow = RandomTokens(running->config(), 90, 20),
                             quick = RandomTokens(running->config(), 40, 21),
                             third = RandomTokens(running->config(), 33, 22);
  const auto slow_cache = model.NewCache(), quick_cache = model.NewCache(),
             third_cache = model.NewCache();
  ForwardPass pass, third_pass;
  pass.chunks = {{slow, slow_cache.get()}};
  third_pass.chunks = {{third, third_cache.get()}};
  const CacheSnapshot before = slow_cache->TakeSnapshot();
  Tensor streams, logits;
  Digest quick_digest;
  size_t done = 0;
  const auto quick_pass = [&] {
    const size_t count = std::min<size_t>(7, quick.size() - done);
    if (count == 0) return;
    const SequenceChunk chunk{std::span(quick).subspan(done, count), quick_cache.get()};
    model.Forward({&chunk, 1}, streams);
    model.Logits(streams, logits);
    quick_digest.AddValues(logits.values());
    done += count;
  };
  model.Begin(pass);
  model.RunHalf(pass);
  quick_pass();
  slow_cache->Restore(before);
  model.Begin(third_pass);
  model.Begin(pass);
  bool more = true, third_more = true;
  while (more || third_more) {
    if (more) more = model.RunHalf(pass);
    quick_pass();
    if (third_more) third_more = model.RunHalf(third_pass);
  }
  while (done < quick.size()) quick_pass();
  const auto outcome = [&](const ForwardPass& one, const SequenceCache& cache) {
    model.Logits(one.streams, logits);
    Digest digest;
    digest.AddValues(logits.values());
    return Outcome{digest.Hex(), cache.DigestHex(running->config(), running->backend())};
  };
  EXPECT_EQ(outcome(pass, *slow_cache), RunPrompt(*running, slow, kAtOnce));
  EXPECT_EQ(outcome(third_pass, *third_cache), RunPrompt(*running, third, kAtOnce));
  const Outcome quick_outcome{quick_digest.Hex(),
                              quick_cache->DigestHex(running->config(), running->backend())};
  EXPECT_EQ(quick_outcome, RunPrompt(*running, quick, kAtOnce));
}

INSTANTIATE_TEST_SUITE_P(Models, InvarianceTest,
                         ::testing::Values("g1_minimal", "g2_all_kinds", "g3_wide_two_shards",
                                           "g4_fp8_experts", "flash_heads"),
                         [](const auto& test) { return test.param; });

// Every prompt length of a range on the fast backend, in one piece, against the reference backend
// fed token by token.
void SweepLengths(const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  const std::filesystem::path folder = GoldenSet::Folder("g1_minimal") / "checkpoint";
  RunningModel reference(LoadModel(folder), {"reference", "", 0, Numerics::kOfficial});
  RunningModel fast(LoadModel(folder), Cpu("", 2));
  const std::vector<int32_t> tokens = RandomTokens(fast.config(), ranges.back().second, 3);
  const auto cache = reference.model().NewCache();
  Tensor streams, logits;
  int64_t fed = 0;
  const auto feed = [&](int64_t count) {
    const SequenceChunk chunk{
        std::span(tokens).subspan(static_cast<size_t>(fed), static_cast<size_t>(count)),
        cache.get()};
    reference.model().Forward({&chunk, 1}, streams);
    fed += count;
  };
  for (const auto& [first, last] : ranges) {
    if (first - 1 > fed) feed(first - 1 - fed);
    for (int64_t length = first; length <= last; ++length) {
      feed(1);
      reference.model().Logits(streams, logits);
      Digest digest;
      digest.AddValues(logits.values());
      const Outcome expected{digest.Hex(),
                             cache->DigestHex(reference.config(), reference.backend())};

      const auto fast_cache = fast.model().NewCache();
      const SequenceChunk whole{std::span(tokens).first(static_cast<size_t>(length)),
                                fast_cache.get()};
      Tensor fast_streams, last_row, fast_logits;
      fast.model().Forward({&whole, 1}, fast_streams);
      last_row.Reshape({1, fast_streams.extent(1), fast_streams.extent(2)});
      std::copy_n(fast_streams.Row(length - 1), fast_streams.width(), last_row.data());
      fast.model().Logits(last_row, fast_logits);
      Digest fast_digest;
      fast_digest.AddValues(fast_logits.values());
      ASSERT_EQ((Outcome{fast_digest.Hex(), fast_cache->DigestHex(fast.config(), fast.backend())}),
                expected)
          << length << " tokens";
    }
  }
}

TEST(LengthSweepTest, OneTo300) { SweepLengths({{1, 300}}); }

TEST(LengthSweepTest, Around512And1024And2048) {
  SweepLengths({{509, 515}, {1021, 1027}, {2045, 2051}});
}

}  // namespace
}  // namespace toaster
