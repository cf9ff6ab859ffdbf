#include "engine/plan_step.h"

#include <gtest/gtest.h>

#include <map>

namespace toaster {
namespace {

using Parts = std::vector<StepPlan::Part>;

StepState With(std::vector<SequenceWork> sequences, double token_seconds = 0.01) {
  return {std::move(sequences), {token_seconds}, 0};
}

TEST(PlanStep, GivesEveryDecodingSequenceItsToken) {
  const StepPlan plan = PlanStep(With({{1, 0, 0, 0, 1}, {2, 1, 0, 1, 1}}), {});
  EXPECT_EQ(plan.parts, (Parts{{1, 1}, {2, 1}}));
  EXPECT_EQ(plan.prefill_tokens, 0);
  EXPECT_TRUE(PlanStep(With({}), {}).parts.empty());
}

TEST(PlanStep, GivesALonePrefillAllItCanUse) {
  PlanOptions options;
  options.most_tokens = 512;
  EXPECT_EQ(PlanStep(With({{7, 0, 0, 0, 3000}}), options).parts, (Parts{{7, 512}}));
  EXPECT_EQ(PlanStep(With({{7, 0, 0, 0, 30}}), options).parts, (Parts{{7, 30}}));
}

TEST(PlanStep, KeepsAStepShortWhileOthersWait) {
  // A second is a hundred tokens here.
  const std::vector<SequenceWork> both = {{1, 0, 0, 0, 1}, {2, 1, 0, 1, 3000}};
  EXPECT_EQ(PlanStep(With(both), {}).parts, (Parts{{1, 1}, {2, 100}}));
  // Nothing is known yet, or steps are very slow: the least that is worth it.
  EXPECT_EQ(PlanStep(With(both, 0), {}).prefill_tokens, 32);
  EXPECT_EQ(PlanStep(With(both, 10), {}).prefill_tokens, 32);
  EXPECT_EQ(PlanStep(With(both, 1e-9), {}).prefill_tokens, 2048);
}

TEST(PlanStep, LetsDecodingCatchUp) {
  StepState state = With({{1, 0, 0, 0, 1}, {2, 1, 0, 1, 3000}});
  state.owed_to_decoding_seconds = 0.5;
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{1, 1}}));
  state.sequences.erase(state.sequences.begin());  // nobody decodes
  EXPECT_EQ(PlanStep(state, {}).prefill_tokens, 2048);
}

TEST(PlanStep, PutsHigherPrioritiesFirst) {
  const StepPlan plan = PlanStep(With({{1, 0, 0, 0, 3000}, {2, 1, 5, 1, 3000}}), {});
  EXPECT_EQ(plan.parts, (Parts{{2, 100}}));
}

TEST(PlanStep, LetsNobodyStarve) {
  // A long prompt, and short ones that never end: the long one still gets its quarter.
  const StepPlan plan =
      PlanStep(With({{1, 0, 0, 0, 30000}, {2, 1, 0, 1, 90}, {3, 2, 0, 2, 90}}), {});
  std::map<int64_t, int64_t> tokens;
  for (const StepPlan::Part& part : plan.parts) tokens[part.id] = part.tokens;
  EXPECT_EQ(tokens[1], 25);
  EXPECT_EQ(tokens[2], 75);
}

TEST(PlanStep, AFirstTokenWaitsForNobodysRest) {
  // Prompts that end with the slice are not held up by what would still go into it.
  const std::vector<SequenceWork> works = {
      {1, 0, 0, 0, 30000}, {2, 1, 0, 1, 1}, {3, 2, 0, 2, 30}, {4, 3, 0, 3, 12}};
  EXPECT_EQ(PlanStep(With(works), {}).parts, (Parts{{2, 1}, {4, 12}, {3, 30}, {1, 14}}));
  // Nor by what is owed to decoding, as long as that is less than a slice.
  StepState state = With(works);
  state.owed_to_decoding_seconds = 0.9;
  EXPECT_EQ(PlanStep(state, {}).prefill_tokens, 56);
  state.owed_to_decoding_seconds = 1.1;
  EXPECT_EQ(PlanStep(state, {}).prefill_tokens, 0);
}

TEST(PlanStep, CountsAClientOnce) {
  // One client with many short prompts is behind one with a single, slightly longer one.
  const StepPlan plan =
      PlanStep(With({{1, 0, 0, 0, 60}, {2, 0, 0, 1, 60}, {3, 0, 0, 2, 60}, {4, 9, 0, 3, 75}}), {});
  EXPECT_EQ(plan.parts, (Parts{{4, 75}, {1, 25}}));
}

// The whole course with constant costs: a token of prefill 0.01 s, a step of decoding 0.1 s.
TEST(PlanStep, ANewcomerDoesNotWaitForALongPromptAndDecodingKeepsHalfItsSpeed) {
  constexpr double kToken = 0.01, kDecode = 0.1;
  constexpr int64_t kPrompt = 200;
  std::vector<SequenceWork> sequences = {{1, 1, 0, 0, 1}, {2, 2, 0, 1, 30000}};
  double time = 0, owed = 0, newcomer_seconds = 0;
  int64_t decoded = 0;
  bool came = false;
  while (time < 120) {
    if (!came && time > 30) {
      sequences.push_back({3, 3, 0, 2, kPrompt});
      came = true;
      newcomer_seconds = -time;
    }
    const StepPlan plan = PlanStep({sequences, {kToken}, owed}, {});
    const double seconds = kDecode + kToken * static_cast<double>(plan.prefill_tokens);
    time += seconds;
    owed = plan.prefill_tokens > 0 ? owed + seconds : std::max(0.0, owed - seconds);
    for (const StepPlan::Part& part : plan.parts) {
      if (part.id == 1) ++decoded;
      for (SequenceWork& work : sequences) {
        if (work.id != part.id || work.id == 1) continue;
        work.remaining -= part.tokens;
        if (work.id == 3 && work.remaining == 0) newcomer_seconds += time;
      }
    }
    std::erase_if(sequences, [](const SequenceWork& work) { return work.remaining == 0; });
  }
  EXPECT_GT(newcomer_seconds, 0);
  EXPECT_LT(newcomer_seconds, 5 * (kDecode + kToken * kPrompt));
  EXPECT_GE(static_cast<double>(decoded), 0.5 * time / kDecode);
}

}  // namespace
}  // namespace toaster
