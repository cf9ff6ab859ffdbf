#include "engine/step_meter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "checkpoint/test_files.h"
#include "engine/engine.h"

namespace toaster {
namespace {

TEST(StepMeter, SharesAreOfWhatBinds) {
  Profile profile;
  const MachineLimits limits{.read_bytes_per_s = 100, .bf16_flops_per_s = 1000};
  StepMeter meter(&profile, nullptr, limits);
  EXPECT_EQ(meter.limit_share(), 0);
  profile.Add("of another step", 1, {.bytes = 1e9});
  meter.Begin();
  profile.Add("head", 1, {.bytes = 50, .bf16_flops = 100});  // half a second, a tenth
  profile.Add("experts", 1, {.bytes = 25, .bf16_flops = 100});
  EXPECT_EQ(meter.End(1).memory, 75);
  EXPECT_DOUBLE_EQ(meter.limit_share(), 0.75);
  // A step of a half-life whose arithmetic binds: the earlier second counts half.
  meter.Begin();
  profile.Add("prefill", 5, {.bytes = 100, .bf16_flops = 2500});
  meter.End(StepMeter::kHalfLife);
  EXPECT_DOUBLE_EQ(meter.limit_share(), (0.75 / 2 + 2.5) / (1.0 / 2 + StepMeter::kHalfLife));
}

TEST(StepMeter, NothingIsKnownWithoutLimits) {
  Profile profile;
  StepMeter meter(&profile, nullptr, {});
  meter.Begin();
  profile.Add("head", 1, {.bytes = 50});
  EXPECT_EQ(meter.End(1).memory, 50);
  EXPECT_EQ(meter.limit_share(), 0);
  StepMeter none(nullptr, nullptr, {.read_bytes_per_s = 1});
  none.Begin();
  EXPECT_EQ(none.End(1).memory, 0);
  EXPECT_EQ(none.limit_share(), 0);
}

// Whatever company a request has, all that was read is somebody's.
TEST(StepMeter, RequestsShareWhatTheirStepsRead) {
  Profile profile;
  RunningModel running(LoadModel(test::GoldenCheckpoint("g2_all_kinds")),
                       {"cpu", "", 2, Numerics::kOfficial, &profile});
  Engine engine(running, {}, nullptr, {&profile, {.read_bytes_per_s = 1e12}});
  std::vector<std::unique_ptr<EngineStream>> streams;
  for (const int64_t length : {1, 40, 170}) {
    EngineRequest request;
    for (int64_t i = 0; i < length; ++i) {
      request.prompt.push_back(
          static_cast<int32_t>(Philox(7, static_cast<uint64_t>(i), 0)[0] %
                               static_cast<uint32_t>(running.config().vocab_size)));
    }
    request.max_tokens = 10;
    request.ignore_eos = true;
    streams.push_back(engine.Submit(std::move(request)));
  }
  double together = 0;
  for (const auto& stream : streams) {
    EngineToken token;
    while (stream->Wait(std::chrono::seconds(60), token) != EngineStream::Next::kEnd) {
    }
    EXPECT_GT(stream->figures().memory_bytes, 0);
    EXPECT_EQ(stream->figures().disk_bytes, 0);
    together += stream->figures().memory_bytes;
  }
  engine.Stop();
  const EngineStatus status = engine.status();
  EXPECT_NEAR(status.read_bytes.memory, together, 1e-9 * together);
  EXPECT_GT(status.limit_share, 0);
  EXPECT_FALSE(status.experts.has_value());
}

}  // namespace
}  // namespace toaster
