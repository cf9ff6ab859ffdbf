#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "base/digest.h"
#include "base/faulty_file_environment.h"
#include "base/random.h"
#include "base/temporary_directory.h"
#include "checkpoint/test_files.h"
#include "engine/engine.h"
#include "engine/session.h"

namespace toaster {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

struct Answer {
  std::vector<int32_t> tokens;
  EngineFigures figures;
};

// An engine, or a session, with a prefix store on disk.
class EngineStoreTest : public testing::Test {
 protected:
  EngineStoreTest() : running_(LoadModel(test::GoldenCheckpoint("g2_all_kinds")), {"cpu", "", 2}) {}

  PrefixStoreOptions StoreOptions() {
    PrefixStoreOptions options;
    options.directory = directory_.path() / "store";
    options.least_tokens = 1;
    options.environment = &environment_;
    options.note = [this](const std::string& line) { notes_.push_back(line); };
    return options;
  }
  static EngineLimits Limits(int64_t chunk) {
    EngineLimits limits;
    limits.chunk = chunk;
    return limits;
  }
  std::vector<int32_t> Tokens(int64_t size, uint64_t key) const {
    std::vector<int32_t> tokens(static_cast<size_t>(size));
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>(
          2 + Philox(key, i, 0)[0] % static_cast<uint32_t>(running_.config().vocab_size - 2));
    }
    return tokens;
  }
  static Answer Ask(Engine& engine, std::vector<int32_t> prompt, int64_t max_tokens = 12) {
    EngineRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    request.sampling.seed = 5;
    const auto stream = engine.Submit(std::move(request));
    Answer answer;
    EngineToken token;
    for (;;) {
      const EngineStream::Next next = stream->Wait(60s, token);
      if (next == EngineStream::Next::kToken) answer.tokens.push_back(token.token);
      if (next == EngineStream::Next::kEnd) break;
    }
    answer.figures = stream->figures();
    return answer;
  }
  Answer Cold(const std::vector<int32_t>& prompt) {
    Engine engine(running_, Limits(1000));
    return Ask(engine, prompt);
  }
  std::string LogitsDigest(const Session& session) const {
    Digest digest;
    digest.AddValues(session.logits());
    return digest.Hex();
  }

  test::TemporaryDirectory directory_;
  test::FaultyFileEnvironment environment_;
  std::vector<std::string> notes_;
  RunningModel running_;
};

TEST_F(EngineStoreTest, ARestartedEngineGoesOnFromDiskWithTheSameBits) {
  std::vector<int32_t> prompt = Tokens(700, 1);
  std::vector<int32_t> longer = prompt;
  {
    PrefixStore store(StoreOptions(), running_);
    Engine engine(running_, Limits(64), &store);
    const Answer first = Ask(engine, prompt);
    EXPECT_EQ(first.figures.cached_in, "");
    EXPECT_EQ(first.figures.disk_bytes, 0);
    longer.insert(longer.end(), first.tokens.begin(), first.tokens.end() - 1);
  }
  const std::vector<int32_t> more = Tokens(30, 2);
  longer.insert(longer.end(), more.begin(), more.end());
  const Answer cold = Cold(longer);
  for (const int64_t chunk : {1, 17, 1000}) {
    fs::remove_all(directory_.path() / "copy");
    fs::copy(directory_.path() / "store", directory_.path() / "copy", fs::copy_options::recursive);
    PrefixStoreOptions options = StoreOptions();
    options.directory = directory_.path() / "copy";
    PrefixStore store(options, running_);
    Engine engine(running_, Limits(chunk), &store);
    const Answer resumed = Ask(engine, longer);
    EXPECT_EQ(resumed.tokens, cold.tokens) << chunk;
    EXPECT_EQ(resumed.figures.cached_in, "disk");
    EXPECT_EQ(resumed.figures.cached_tokens, 711);
    EXPECT_GT(resumed.figures.disk_bytes, 0);
    EXPECT_EQ(Ask(engine, longer).figures.cached_in, "memory");
  }
  EXPECT_THAT(notes_, testing::IsEmpty());
}

TEST_F(EngineStoreTest, WaitingConversationsComeBackWhenMemoryIsShort) {
  PrefixStore store(StoreOptions(), running_);
  EngineLimits limits = Limits(128);
  limits.prefix_bytes = 0;  // memory keeps nothing
  std::vector<std::vector<int32_t>> prompts;
  std::vector<Answer> cold;
  for (uint64_t i = 0; i < 4; ++i) {
    prompts.push_back(Tokens(300 + static_cast<int64_t>(i), i));
    cold.push_back(Cold(prompts.back()));
  }
  Engine engine(running_, limits, &store);
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      std::vector<int32_t> prompt = prompts[i];
      const Answer answer = Ask(engine, prompt);
      EXPECT_EQ(answer.tokens, cold[i].tokens);
      if (round == 0) continue;
      prompt.insert(prompt.end(), answer.tokens.begin(), answer.tokens.end());
      const Answer next = Ask(engine, prompt, 1);
      EXPECT_EQ(next.figures.cached_in, "disk");
      EXPECT_EQ(next.figures.cached_tokens, static_cast<int64_t>(prompt.size()) - 1);
    }
  }
}

TEST_F(EngineStoreTest, DamageCostsTimeAndNoToken) {
  const std::vector<int32_t> prompt = Tokens(700, 1);
  std::vector<int32_t> longer = prompt;
  longer.push_back(7);
  const Answer cold = Cold(longer);
  for (const bool flipped : {false, true}) {
    notes_.clear();
    {
      PrefixStore store(StoreOptions(), running_);
      Engine engine(running_, Limits(100), &store);
      Ask(engine, prompt, 1);
    }
    // The end of a rows file is what attention reads late.
    for (const auto& entry : fs::directory_iterator(directory_.path() / "store" / "rows")) {
      if (flipped) {
        std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(-1, std::ios::end);
        const auto byte = static_cast<char>(file.get() ^ 1);
        file.seekp(-1, std::ios::end);
        file.put(byte);
      } else {
        fs::resize_file(entry.path(), fs::file_size(entry.path()) - 1);
      }
    }
    PrefixStore store(StoreOptions(), running_);
    Engine engine(running_, Limits(100), &store);
    EXPECT_EQ(Ask(engine, longer).tokens, cold.tokens);
    EXPECT_FALSE(notes_.empty());
  }
}

TEST_F(EngineStoreTest, ASessionGoesOnFromDiskWithTheSameBits) {
  const std::vector<int32_t> tokens = Tokens(600, 3);
  std::vector<int32_t> longer = tokens;
  const std::vector<int32_t> more = Tokens(20, 4);
  longer.insert(longer.end(), more.begin(), more.end());
  Session cold(running_.model(), 1000);
  cold.Sync(longer);
  {
    PrefixStore store(StoreOptions(), running_);
    Session session(running_.model(), 50, &store);
    session.Sync(tokens);
  }
  for (const int64_t chunk : {1, 7, 1000}) {
    PrefixStore store(StoreOptions(), running_);
    Session session(running_.model(), chunk, &store);
    EXPECT_EQ(session.Sync(longer), 600);
    EXPECT_EQ(session.stored_tokens(), 600);
    EXPECT_GT(session.stored_bytes_read(), 0);
    EXPECT_EQ(LogitsDigest(session), LogitsDigest(cold));
    store.directory().Clear();
    PrefixStore again(StoreOptions(), running_);
    Session(running_.model(), 50, &again).Sync(tokens);
  }
}

// A conversation of 50 turns writes its final prefix, and each snapshot once; the same conversation
// again writes nothing.
TEST_F(EngineStoreTest, AnAgentsFiftyTurnsAreWrittenOnce) {
  std::vector<int32_t> prompt;
  const auto converse = [&] {
    PrefixStore store(StoreOptions(), running_);
    Engine engine(running_, Limits(256), &store);
    prompt = Tokens(300, 10);
    for (uint64_t turn = 0; turn < 50; ++turn) {
      const Answer answer = Ask(engine, prompt, 4);
      prompt.insert(prompt.end(), answer.tokens.begin(), answer.tokens.end());
      const std::vector<int32_t> said = Tokens(20, 20 + turn);
      prompt.insert(prompt.end(), said.begin(), said.end());
    }
  };
  converse();
  int64_t rows = 0, places = 0;
  for (const auto& entry : fs::directory_iterator(directory_.path() / "store" / "rows"))
    rows += static_cast<int64_t>(entry.file_size());
  for (const auto& entry : fs::directory_iterator(directory_.path() / "store" / "places"))
    places += static_cast<int64_t>(entry.file_size());
  const int64_t written = environment_.bytes_written();
  EXPECT_GT(rows, 0);
  EXPECT_LE(static_cast<double>(written),
            1.1 * static_cast<double>(rows) + static_cast<double>(places));
  converse();
  EXPECT_EQ(environment_.bytes_written(), written);
}

}  // namespace
}  // namespace toaster
