// Every backend and kernel table against the recorded vectors, block by block and end to end.

#include <gtest/gtest.h>

#include "golden_set.h"

namespace toaster {
namespace {

struct Case {
  std::string set;
  BackendOptions options;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const std::string& set : GoldenSet::Names()) {
    for (const Numerics numerics : {Numerics::kOfficial, Numerics::kFloat32}) {
      BackendOptions options;
      options.numerics = numerics;
      options.backend = "reference";
      cases.push_back({set, options});
      options.backend = "cpu";
      options.threads = 2;
      for (const std::string& table : RunnableKernels()) {
        options.kernels = table;
        cases.push_back({set, options});
      }
    }
  }
  return cases;
}

class GoldenTest : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenTest, MatchesTheRecording) {
  const GoldenSet set(GetParam().set);
  const RecordedTensors results = RecordRuns(set.model().config, set.model().weights,
                                             GetParam().options, set.runs(), set.recording(), 0);
  const std::vector<std::string> mismatches = set.Mismatches(results, GetParam().options.numerics);
  for (const std::string& line : mismatches) ADD_FAILURE() << line;
}

INSTANTIATE_TEST_SUITE_P(Sets, GoldenTest, ::testing::ValuesIn(Cases()), [](const auto& test) {
  const BackendOptions& options = test.param.options;
  return test.param.set + "_" + (options.numerics == Numerics::kOfficial ? "official" : "fp32") +
         "_" + options.backend + (options.kernels.empty() ? "" : "_" + options.kernels);
});

}  // namespace
}  // namespace toaster
