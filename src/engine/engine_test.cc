#include "engine/engine.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/memory_use.h"
#include "base/random.h"
#include "checkpoint/test_files.h"
#include "engine/prefill_chunk.h"
#include "engine/session.h"

namespace toaster {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

std::vector<int32_t> ReadAll(EngineStream& stream) {
  std::vector<int32_t> tokens;
  EngineToken token;
  for (;;) {
    // However slow the machine is: an end that never comes is for the test runner to see.
    const EngineStream::Next next = stream.Wait(60s, token);
    if (next == EngineStream::Next::kEnd) return tokens;
    if (next == EngineStream::Next::kToken) tokens.push_back(token.token);
  }
}

class EngineTest : public testing::Test {
 protected:
  explicit EngineTest(const std::string& set = "g2_all_kinds")
      : running_(LoadModel(test::GoldenCheckpoint(set)), {"cpu", "", 2, Numerics::kOfficial}) {}

  // The same numbers for the same arguments.
  std::vector<int32_t> Prompt(int64_t size, uint64_t key) const {
    std::vector<int32_t> tokens(static_cast<size_t>(size));
    for (size_t i = 0; i < tokens.size(); ++i) {
      // Not the token that ends a reply: the prompt would be an odd one.
      tokens[i] = static_cast<int32_t>(2 + Philox(key, i, 0)[0] %
                                               static_cast<uint32_t>(Config().vocab_size - 2));
    }
    return tokens;
  }
  const toaster::Config& Config() const { return running_.config(); }

  static EngineRequest Request(std::vector<int32_t> prompt, int64_t max_tokens, uint64_t seed) {
    EngineRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling.seed = seed;
    request.sampling.frequency_penalty = 0.1f;
    return request;
  }
  static EngineLimits SmallLimits() {
    EngineLimits limits;
    limits.chunk = 32;
    limits.place_spacing = 50;
    limits.prefix_bytes = 8 << 20;
    return limits;
  }

  // What a request gets alone and cold. The engine has the model's thread to itself, so before it.
  std::vector<int32_t> Alone(const EngineRequest& request) {
    Session session(running_.model(), 1000);
    Sampler sampler(request.sampling, Config().vocab_size);
    sampler.AcceptPrompt(request.prompt);
    std::vector<int32_t> tokens = request.prompt, reply;
    while (static_cast<int64_t>(reply.size()) < request.max_tokens) {
      session.Sync(tokens);
      const int32_t token = sampler.Sample(session.logits(), static_cast<int64_t>(tokens.size()));
      if (token == Config().eos_token_id && !request.ignore_eos) break;
      sampler.Accept(token);
      tokens.push_back(token);
      reply.push_back(token);
    }
    return reply;
  }

  RunningModel running_;
};

TEST_F(EngineTest, CompanyCancellationAndEvictionChangeNoReply) {
  // Sixteen requests of mixed lengths; some share beginnings, so that caches are reused.
  std::vector<EngineRequest> requests;
  std::vector<std::vector<int32_t>> alone;
  for (uint64_t i = 0; i < 16; ++i) {
    std::vector<int32_t> prompt = Prompt(1 + static_cast<int64_t>(i * 37 % 200), i % 3);
    if (i % 4 == 1) prompt.push_back(3);
    requests.push_back(Request(std::move(prompt), 5 + static_cast<int64_t>(i * 7 % 30), i));
    requests.back().client = std::string(1, static_cast<char>('a' + i % 5));
    alone.push_back(Alone(requests.back()));
  }
  // With room for everything, for a few places, and for none.
  const int64_t place_bytes = running_.model().NewCache()->allocated_bytes();
  for (const int64_t prefix_bytes : {int64_t{64} << 20, 4 * place_bytes, int64_t{0}}) {
    EngineLimits limits = SmallLimits();
    limits.most_running = 6;
    limits.prefix_bytes = prefix_bytes;
    limits.linger_seconds = 0.01;
    Engine engine(running_, limits);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::unique_ptr<EngineStream>> streams;
      for (size_t i = 0; i < requests.size(); ++i) {
        streams.push_back(engine.Submit(requests[i]));
        ASSERT_NE(streams.back(), nullptr);
      }
      // Some go at once, some after their first token.
      EngineToken token;
      streams[2].reset();
      streams[11].reset();
      ASSERT_EQ(streams[5]->Wait(60s, token), EngineStream::Next::kToken);
      streams[5].reset();
      for (size_t i = 0; i < streams.size(); ++i) {
        if (streams[i] == nullptr) continue;
        EXPECT_EQ(ReadAll(*streams[i]), alone[i]) << i << ", " << prefix_bytes << " bytes";
      }
    }
    const EngineStatus status = engine.status();
    EXPECT_LE(status.prefix_bytes, prefix_bytes);
    EXPECT_EQ(status.places > 0, prefix_bytes > 0);
    if (prefix_bytes > 0) {
      EXPECT_GT(status.cached_tokens, 0);
    }
  }
}

/// A time of the test's own for an engine: 0.1 s a pass and 0.01 s a token, in equal parts for its
/// pieces. The engine waits after every step until the test lets it do the next.
class StepTime {
 public:
  double AfterStep(int64_t tokens, double share) {
    const double seconds = (0.1 + 0.01 * static_cast<double>(tokens)) * share;
    std::unique_lock lock(mutex_);
    now_ += seconds;
    ++steps_;
    wake_.notify_all();
    const int64_t here = steps_;
    wake_.wait(lock, [&] { return free_ || allowed_ > here; });
    return seconds;
  }
  /// Returns when the next step is done.
  void Step() {
    std::unique_lock lock(mutex_);
    allowed_ = seen_ + 1;
    wake_.notify_all();
    wake_.wait(lock, [&] { return steps_ > seen_; });
    seen_ = steps_;
    seen_now_ = now_;
  }
  /// After the last step that was asked for.
  double now() const { return seen_now_; }
  void Release() {
    const std::lock_guard lock(mutex_);
    free_ = true;
    wake_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  double now_ = 0, seen_now_ = 0;
  int64_t steps_ = 0, seen_ = 0, allowed_ = 0;
  bool free_ = false;
};

TEST_F(EngineTest, ANewcomerDoesNotWaitForALongPromptAndDecodingKeepsHalfItsSpeed) {
  StepTime time;
  EngineLimits limits;
  limits.prefill_slice_seconds = 0.5;
  limits.linger_seconds = 0;
  limits.chunk = ServingChunk(running_.config());
  limits.step_seconds = [&](int64_t tokens, double share) { return time.AfterStep(tokens, share); };
  Engine engine(running_, limits);
  EngineToken token;
  const auto came = [&](EngineStream& stream) {
    return stream.Wait(0ms, token) == EngineStream::Next::kToken;
  };
  const auto until_token = [&](EngineStream& stream) {
    const double start = time.now();
    do {
      time.Step();
    } while (!came(stream));
    return time.now() - start;
  };

  // Alone: a first token; the same while nothing but a long prompt is read; decoding alone.
  EngineRequest newcomer = Request(Prompt(100, 1), 1, 1);
  newcomer.ignore_eos = true;
  auto stream = engine.Submit(newcomer);
  const double lone_seconds = until_token(*stream);
  {
    const auto reading = engine.Submit(Request(Prompt(4000, 5), 1, 5));
    for (int i = 0; i < 5; ++i) time.Step();
    newcomer.prompt = Prompt(100, 6);
    stream = engine.Submit(newcomer);
    // It may have come when a step of the long prompt had just begun.
    const double begun = 0.1 + 0.01 * static_cast<double>(limits.chunk);
    EXPECT_LE(begun + until_token(*stream), 5 * lone_seconds);
    // Neither if the cache ends before its last token.
    newcomer.prompt = Prompt(100, 7);
    newcomer.stable_tokens = 99;
    stream = engine.Submit(newcomer);
    EXPECT_LE(begun + until_token(*stream), 5 * lone_seconds);
    EXPECT_FALSE(came(*reading)) << "the long prompt has to last";
  }
  EngineRequest writer = Request(Prompt(5, 2), 4000, 2);
  writer.ignore_eos = true;
  const auto writing = engine.Submit(writer);
  until_token(*writing);
  const double lone_token_seconds = until_token(*writing);

  const auto reading = engine.Submit(Request(Prompt(4000, 3), 1, 3));
  const double start = time.now();
  int64_t written = 0;
  const auto step = [&] {
    time.Step();
    written += came(*writing);
    ASSERT_FALSE(came(*reading)) << "the long prompt has to last";
  };
  for (int i = 0; i < 20; ++i) step();
  const double arrival = time.now();
  newcomer.prompt = Prompt(100, 4);
  stream = engine.Submit(newcomer);
  do {
    step();
  } while (!came(*stream) && !HasFatalFailure());
  EXPECT_LE(time.now() - arrival, 5 * lone_seconds);
  for (int i = 0; i < 20; ++i) step();
  const double speed = static_cast<double>(written) / (time.now() - start);
  EXPECT_GE(speed, 0.5 / lone_token_seconds);
  time.Release();
}

class EngineSoakLongTest : public EngineTest {};

// Sixteen sessions at a time for as long as TOASTER_SOAK_SECONDS says: lengths, company, clients,
// cancellations and the evictions of a small cache are drawn; every reply is that of its request
// alone and cold, and nothing is left behind.
TEST_F(EngineSoakLongTest, EveryReplyIsTheOneAloneAndMemoryStaysFlat) {
  constexpr size_t kSessions = 16, kRequests = 40;
  const char* given = std::getenv("TOASTER_SOAK_SECONDS");
  const auto length = std::chrono::seconds(given ? std::atoi(given) : 60);
  std::vector<EngineRequest> requests;
  std::vector<std::vector<int32_t>> alone;
  for (uint64_t i = 0; i < kRequests; ++i) {
    // Some prompts share beginnings of different lengths.
    std::vector<int32_t> prompt = Prompt(1 + static_cast<int64_t>(i * 53 % 400), i % 5);
    if (i % 3 == 1) prompt.push_back(static_cast<int32_t>(3 + i));
    requests.push_back(Request(std::move(prompt), 1 + static_cast<int64_t>(i * 17 % 90), i));
    alone.push_back(Alone(requests.back()));
  }
  EngineLimits limits = SmallLimits();
  limits.most_running = 10;
  limits.prefix_bytes = 6 * running_.model().NewCache()->allocated_bytes();
  limits.linger_seconds = 0.05;
  Engine engine(running_, limits);

  struct SoakSession {
    std::unique_ptr<EngineStream> stream;
    size_t request = 0;
    size_t cancel_after = 0;  // tokens
    std::vector<int32_t> reply;
  };
  std::vector<SoakSession> sessions(kSessions);
  uint64_t drawn = 0;
  const auto draw = [&](uint32_t below) { return Philox(99, drawn++, 0)[0] % below; };
  int64_t replies = 0, cancelled = 0, early_bytes = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::steady_clock::now() - start; };
  while (elapsed() < length) {
    if (early_bytes == 0 && elapsed() > length / 4) early_bytes = CurrentMemoryUse().anonymous;
    for (SoakSession& session : sessions) {
      if (session.stream == nullptr) {
        session.request = draw(kRequests);
        EngineRequest request = requests[session.request];
        request.client = std::string(1, static_cast<char>('a' + draw(6)));
        request.owner = std::string(1, static_cast<char>('A' + draw(2)));
        request.priority = draw(3);
        session.cancel_after = draw(3) == 0 ? draw(40) : SIZE_MAX;
        session.reply.clear();
        session.stream = engine.Submit(std::move(request));
        ASSERT_NE(session.stream, nullptr);
      }
      if (session.reply.size() >= session.cancel_after) {
        session.stream.reset();
        ++cancelled;
        continue;
      }
      EngineToken token;
      const EngineStream::Next next = session.stream->Wait(1ms, token);
      if (next == EngineStream::Next::kToken) session.reply.push_back(token.token);
      if (next != EngineStream::Next::kEnd) continue;
      ASSERT_EQ(session.reply, alone[session.request]) << "request " << session.request;
      session.stream.reset();
      ++replies;
    }
  }
  const int64_t end_bytes = CurrentMemoryUse().anonymous;
  std::printf("%lld replies, %lld cancelled, %.1f then %.1f MiB\n", static_cast<long long>(replies),
              static_cast<long long>(cancelled), static_cast<double>(early_bytes) / (1 << 20),
              static_cast<double>(end_bytes) / (1 << 20));
  EXPECT_GT(replies, 0);
  // What the allocator holds back moves a little; a cache that leaked once a second would not pass.
  EXPECT_LT(end_bytes, early_bytes + (int64_t{16} << 20));
}

TEST_F(EngineTest, TellsWhatTheCacheDid) {
  EngineRequest first = Request(Prompt(120, 1), 4, 1);
  first.stable_tokens = 110;
  EngineRequest next = Request(Prompt(130, 1), 4, 1);
  EngineRequest other = next;
  other.prompt[105] = other.prompt[105] == 7 ? 8 : 7;
  EngineRequest foreign = next;
  foreign.owner = "someone else";
  Engine engine(running_, SmallLimits());
  const auto figures = [&](const EngineRequest& request) {
    const auto stream = engine.Submit(request);
    ReadAll(*stream);
    return stream->figures();
  };
  const EngineFigures cold = figures(first);
  EXPECT_EQ(cold.cached_tokens, 0);
  EXPECT_EQ(cold.miss_reason, "nothing is cached yet");
  EXPECT_GT(cold.prefill_seconds, 0);
  // 110 is the stable place; the reply's tokens are others.
  const EngineFigures warm = figures(next);
  EXPECT_EQ(warm.cached_tokens, 110);
  EXPECT_THAT(warm.miss_reason, HasSubstr("the first that differs"));
  const EngineFigures changed = figures(other);
  EXPECT_EQ(changed.cached_tokens, 100);  // a place every 50 tokens
  EXPECT_EQ(changed.miss_reason,
            "token 105 is the first that differs from what is cached; the last place kept before "
            "it is token 100");
  EXPECT_EQ(figures(foreign).cached_tokens, 0);
  EXPECT_EQ(figures(foreign).cached_tokens, 100);  // its own, now
}

TEST_F(EngineTest, ThePromptThatIsAskedAgainIsThere) {
  Engine engine(running_, SmallLimits());
  const EngineRequest request = Request(Prompt(333, 1), 3, 1);
  const std::vector<int32_t> reply = ReadAll(*engine.Submit(request));
  const auto again = engine.Submit(request);
  EXPECT_EQ(ReadAll(*again), reply);
  EXPECT_EQ(again->figures().cached_tokens, 332);
  EXPECT_EQ(again->figures().miss_reason, "");
}

TEST_F(EngineTest, APrefillGoesOnWhenItsClientHasGone) {
  EngineRequest request = Request(Prompt(1500, 4), 6, 9);
  const std::vector<int32_t> alone = Alone(request);
  EngineLimits limits = SmallLimits();
  limits.place_spacing = 1 << 20;  // what is found is not a place on the way
  Engine engine(running_, limits);
  auto stream = engine.Submit(request);
  const auto computed = [&](int64_t id) {
    for (const EngineStatus::Slot& slot : engine.status().running) {
      if (slot.id == id) return slot.computed;
    }
    return int64_t{-1};
  };
  while (computed(0) < 200) std::this_thread::sleep_for(1ms);
  stream.reset();
  // The same again, with the prefill under way.
  stream = engine.Submit(request);
  EXPECT_EQ(ReadAll(*stream), alone);
  EXPECT_GE(stream->figures().cached_tokens, 200);
  EXPECT_EQ(stream->figures().cached_tokens == 1499 ? ""
                                                    : "a prefill that was broken off is gone "
                                                      "on with",
            stream->figures().miss_reason);
  const int64_t tokens = engine.status().computed_tokens;
  EXPECT_LE(tokens, 1500 + 6);  // nothing was computed twice
  // And after it has come to its end by itself.
  request.prompt[0] = 5;
  stream = engine.Submit(request);
  while (computed(2) < 100) std::this_thread::sleep_for(1ms);
  stream.reset();
  while (!engine.status().running.empty()) std::this_thread::sleep_for(1ms);
  stream = engine.Submit(request);
  ReadAll(*stream);
  EXPECT_EQ(stream->figures().cached_tokens, 1499);
  EXPECT_EQ(stream->figures().miss_reason, "");
}

TEST_F(EngineTest, WhoBeginsAlikeWaitsForThePromptThatIsBeingRead) {
  EngineRequest request = Request(Prompt(1500, 4), 6, 9);
  request.ignore_eos = true;
  EngineRequest longer = request;
  longer.prompt.resize(1000);
  const std::vector<int32_t> other_rest = Prompt(300, 5);
  longer.prompt.insert(longer.prompt.end(), other_rest.begin(), other_rest.end());
  longer.prompt[1000] = request.prompt[1000] == 7 ? 8 : 7;
  EngineRequest foreign = request;
  foreign.owner = "someone else";
  const std::vector<int32_t> alone = Alone(request), longer_alone = Alone(longer);
  for (const bool leader_goes : {false, true}) {
    StepTime time;
    EngineLimits limits = SmallLimits();
    limits.place_spacing = 1 << 20;
    limits.step_seconds = [&](int64_t tokens, double share) {
      return time.AfterStep(tokens, share);
    };
    Engine engine(running_, limits);
    auto stream = engine.Submit(request);
    for (int i = 0; i < 30; ++i) time.Step();
    const auto same = engine.Submit(request), differing = engine.Submit(longer),
               hidden = engine.Submit(foreign);
    for (int i = 0; i < 5; ++i) time.Step();
    if (leader_goes) stream.reset();
    time.Release();
    EXPECT_EQ(ReadAll(*same), alone);
    EXPECT_EQ(ReadAll(*differing), longer_alone);
    EXPECT_EQ(ReadAll(*hidden), alone);
    if (!leader_goes) {
      EXPECT_EQ(ReadAll(*stream), alone);
      EXPECT_EQ(stream->figures().cached_tokens, 0);
      EXPECT_EQ(same->figures().cached_tokens, 1499);
      EXPECT_EQ(same->figures().miss_reason, "");
    }
    EXPECT_EQ(differing->figures().cached_tokens, 1000);
    EXPECT_EQ(differing->figures().miss_reason, "the rest is new");
    EXPECT_EQ(differing->figures().cached_in, "memory");
    EXPECT_EQ(hidden->figures().cached_tokens, 0);
    // Each prompt once, but for the last token of the same one, and each token of the replies but
    // the last.
    EXPECT_LE(engine.status().computed_tokens, 1500 + 1 + 300 + 1500 + 4 * 5);
  }
}

TEST_F(EngineTest, WaitsForSlowReaders) {
  EngineRequest slow = Request(Prompt(10, 1), 60, 1), other = Request(Prompt(10, 2), 60, 1);
  slow.ignore_eos = other.ignore_eos = true;
  const std::vector<int32_t> alone = Alone(slow);
  EngineLimits limits = SmallLimits();
  limits.most_unread = 4;
  Engine engine(running_, limits);
  const auto stream = engine.Submit(slow);
  const auto fast = engine.Submit(other);
  EXPECT_EQ(ReadAll(*fast).size(), 60u);
  for (const EngineStatus::Slot& slot : engine.status().running) {
    if (slot.id == 0) {
      EXPECT_LE(slot.tokens, 10 + 4);
    }
  }
  EXPECT_EQ(ReadAll(*stream), alone);
}

TEST_F(EngineTest, RefusesWhatCannotRunOrHasNoRoom) {
  EngineLimits limits = SmallLimits();
  limits.most_running = 1;
  limits.most_waiting = 2;
  Engine engine(running_, limits);
  const auto message = [&](const EngineRequest& request) {
    return test::MessageOf([&] { engine.Submit(request); });
  };
  EXPECT_EQ(message(Request({}, 1, 0)), "the prompt has no tokens; give at least one");
  EXPECT_THAT(message(Request({1, 160}, 1, 0)), HasSubstr("token 160 is outside the vocabulary"));
  EXPECT_THAT(message(Request(Prompt(4097, 0), 1, 0)), HasSubstr("the prompt has 4097 tokens"));
  EngineRequest hot = Request({3}, 1, 0);
  hot.sampling.temperature = -1;
  EXPECT_THAT(message(hot), HasSubstr("temperature"));

  EngineRequest request = Request(Prompt(2000, 1), 1, 0);
  std::vector<std::unique_ptr<EngineStream>> streams;
  for (int i = 0; i < 3; ++i) {
    streams.push_back(engine.Submit(request));
    EXPECT_NE(streams.back(), nullptr) << i;
  }
  EXPECT_EQ(engine.Submit(request), nullptr);
  streams[1].reset();  // one that waits gives its place back
  EngineToken token;
  EXPECT_EQ(streams[0]->Wait(60s, token), EngineStream::Next::kToken);
  std::unique_ptr<EngineStream> late;
  while ((late = engine.Submit(request)) == nullptr) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(ReadAll(*late).size(), 1u);
}

TEST_F(EngineTest, EndsWhereTheModelsContextDoes) {
  EngineRequest request = Request(Prompt(4090, 1), 1000, 0);
  request.ignore_eos = true;
  Engine engine(running_, {});
  const auto stream = engine.Submit(request);
  EXPECT_EQ(ReadAll(*stream).size(), 7u);  // the last one is sampled, not computed
  EXPECT_EQ(stream->end(), EngineEnd::kLength);
}

TEST_F(EngineTest, TellsLogProbabilities) {
  EngineRequest request = Request(Prompt(20, 1), 3, 0);
  request.logprobs = 160;
  request.sampling.frequency_penalty = 0;
  Engine engine(running_, SmallLimits());
  const auto stream = engine.Submit(request);
  EngineToken token;
  ASSERT_EQ(stream->Wait(60s, token), EngineStream::Next::kToken);
  ASSERT_EQ(token.alternatives.size(), 160u);
  double sum = 0;
  std::optional<float> own;
  for (const LogProbability& alternative : token.alternatives) {
    sum += std::exp(static_cast<double>(alternative.value));
    if (alternative.token == token.token) own = alternative.value;
  }
  EXPECT_NEAR(sum, 1, 1e-5);  // 160 floats of 24 bits
  EXPECT_EQ(own, token.probability.value);
  EXPECT_GE(token.alternatives[0].value, token.alternatives[1].value);
}

TEST_F(EngineTest, StopsAtOnceAndTellsItsReaders) {
  auto engine = std::make_unique<Engine>(running_, SmallLimits());
  EngineRequest request = Request(Prompt(10, 1), 4000, 1);
  request.ignore_eos = true;
  const auto stream = engine->Submit(request);
  EngineToken token;
  ASSERT_EQ(stream->Wait(60s, token), EngineStream::Next::kToken);
  engine.reset();
  ReadAll(*stream);
  EXPECT_EQ(stream->end(), EngineEnd::kCancelled);
}

// One of four experts of layer 0, whose router is a table of tokens, has a NaN scale.
class EngineWithDamageTest : public testing::Test {
 protected:
  EngineWithDamageTest() {
    const auto source = test::GoldenCheckpoint("g1_minimal");
    std::filesystem::copy(source, directory_.path(),
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::overwrite_existing);
    std::string file = test::ReadFile(source / "model.safetensors");
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file.data(), 8);
    const auto header = nlohmann::json::parse(file.substr(8, header_bytes));
    const uint64_t begin =
        header["layers.0.ffn.experts.3.w1.scale"]["data_offsets"][0].get<uint64_t>();
    file[8 + header_bytes + begin] = '\xFF';
    test::WriteFile(directory_.path() / "model.safetensors", file);
    running_.emplace(LoadModel(directory_.path()), BackendOptions{"cpu", "", 2});
    const IndexTable& table = running_->loaded().weights.layers[0].ffn.tid2eid;
    for (int32_t token = 0; token < running_->config().vocab_size; ++token) {
      bool bad = false;
      for (int64_t i = 0; i < table.columns; ++i) bad |= table.At(token, i) == 3;
      (bad ? bad_ : good_).push_back(token);
    }
  }

  test::TemporaryDirectory directory_;
  std::optional<RunningModel> running_;
  std::vector<int32_t> good_, bad_;
};

TEST_F(EngineWithDamageTest, AnErrorFailsTheRequestThatCausesItAlone) {
  ASSERT_GT(good_.size(), 8u);
  ASSERT_FALSE(bad_.empty());
  EngineRequest good;
  good.prompt.assign(good_.begin(), good_.begin() + 8);
  good.max_tokens = 40;
  good.ignore_eos = true;
  for (const int32_t token : bad_) good.sampling.logit_bias[token] = -1000;
  EngineRequest bad = good;
  bad.prompt.push_back(bad_[0]);

  Engine engine(*running_, {});
  std::vector<int32_t> alone = ReadAll(*engine.Submit(good));
  EXPECT_EQ(alone.size(), 40u);
  for (int round = 0; round < 3; ++round) {
    const auto first = engine.Submit(good);
    EngineToken token;
    ASSERT_EQ(first->Wait(60s, token), EngineStream::Next::kToken);  // they share a step
    const auto failing = engine.Submit(bad);
    const auto last = engine.Submit(good);
    EXPECT_THAT(test::MessageOf([&] { ReadAll(*failing); }),
                HasSubstr("layers.0.ffn.experts.3.w1"));
    std::vector<int32_t> rest = ReadAll(*first);
    rest.insert(rest.begin(), token.token);
    EXPECT_EQ(rest, alone);
    EXPECT_EQ(ReadAll(*last), alone);
  }
}

}  // namespace
}  // namespace toaster
