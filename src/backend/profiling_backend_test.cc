#include "backend/profiling_backend.h"

#include <gtest/gtest.h>

#include <vector>

#include "backend/registry.h"

namespace toaster {
namespace {

TEST(WorkTest, TheSlowerOfMemoryAndArithmeticDecides) {
  const MachineLimits limits{.read_bytes_per_s = 100,
                             .bf16_flops_per_s = 10,
                             .int8_ops_per_s = 20,
                             .float_flops_per_s = 5};
  const Work work{.bytes = 400, .bf16_flops = 10, .float_flops = 10, .int8_ops = 10};
  EXPECT_DOUBLE_EQ(work.MemorySeconds(limits), 4);
  EXPECT_DOUBLE_EQ(work.ComputeSeconds(limits), 1 + 2 + 0.5);
  EXPECT_DOUBLE_EQ(work.LeastSeconds(limits), 4);
  EXPECT_DOUBLE_EQ(work.LeastSeconds({}), 0);
}

TEST(ProfileTest, AddsUpByName) {
  Profile first, second;
  first.Add("a", 1, {.bytes = 10});
  second.Add("b", 2, {.bytes = 5});
  second.Add("a", 3, {.bytes = 1});
  first.Add(second);
  ASSERT_EQ(first.operations().size(), 2u);
  EXPECT_EQ(first.operations()[0].calls, 2);
  EXPECT_DOUBLE_EQ(first.operations()[0].seconds, 4);
  EXPECT_DOUBLE_EQ(first.Total().work.bytes, 16);
}

// A row that two tokens share is counted once, the arithmetic for each.
TEST(ProfilingBackendTest, CountsWeightsOnceAndArithmeticPerToken) {
  Profile profile;
  BackendOptions options;
  options.backend = "reference";
  options.profile = &profile;
  const auto backend = CreateBackend(options);
  const std::vector<uint8_t> zeros(1 << 16, 0), ones(1 << 12, 127);
  const Matrix plain{.rows = 8, .columns = 64, .data = zeros.data()};
  Tensor x({3, 64}), y;
  x.Fill(1);
  const Projection projection{&plain, &y};
  backend->Linear(x, {&projection, 1});
  const Profile::Operation linear = profile.Total();
  EXPECT_DOUBLE_EQ(linear.work.bytes, 8 * 64 * 2);
  EXPECT_DOUBLE_EQ(linear.work.bf16_flops, 2 * 8 * 64 * 3);

  profile.Clear();
  const auto fp4 = [&](int64_t rows, int64_t columns) {
    return Matrix{NumberFormat::kE2m1, ScaleFormat::kE8m0, rows, columns,
                  zeros.data(),        ones.data()};
  };
  const Matrix up = fp4(128, 128), down = fp4(128, 128);
  const ExpertMatrices expert{&up, &down, &up};
  const std::vector<ExpertMatrices> matrices(4, expert);
  ResidentExperts experts(matrices);
  Routing routing;
  routing.experts_per_token = 2;
  routing.experts = {0, 2, 2, 3, 0, 2};  // three of four experts
  routing.weights.assign(6, 0.5f);
  Tensor input({3, 128}), output;
  input.Fill(1);
  backend->Experts(input, routing, experts, expert, 0, output);
  const double bytes = 3 * (128 * 64 + 128 * 4), flops = 3 * 2 * 128 * 128;
  EXPECT_DOUBLE_EQ(profile.Total().work.bytes, 4 * bytes);       // and the shared one
  EXPECT_DOUBLE_EQ(profile.Total().work.bf16_flops, 9 * flops);  // 6 routed, 3 shared
}

}  // namespace
}  // namespace toaster
