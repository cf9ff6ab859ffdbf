#include "engine/plan_step.h"

#include <gtest/gtest.h>

#include <map>

namespace toaster {
namespace {

using Kind = StepPlan::Kind;
using Parts = std::vector<StepPlan::Part>;

StepState With(std::vector<SequenceWork> sequences, double token_seconds = 0.01) {
  return {std::move(sequences), {token_seconds}, 0, false, 0};
}

TEST(PlanStep, GivesEveryDecodingSequenceItsToken) {
  const StepPlan plan = PlanStep(With({{1, 0, 0, 0, 1}, {2, 1, 0, 1, 1}}), {});
  EXPECT_EQ(plan.kind, Kind::kDecode);
  EXPECT_EQ(plan.parts, (Parts{{1, 1}, {2, 1}}));
  EXPECT_EQ(PlanStep(With({}), {}).kind, Kind::kNothing);
}

TEST(PlanStep, GivesALonePrefillAllItCanUse) {
  PlanOptions options;
  options.most_tokens = 512;
  const StepPlan plan = PlanStep(With({{7, 0, 0, 0, 3000}}), options);
  EXPECT_EQ(plan.kind, Kind::kBegin);
  EXPECT_EQ(plan.parts, (Parts{{7, 512}}));
  EXPECT_EQ(PlanStep(With({{7, 0, 0, 0, 30}}), options).parts, (Parts{{7, 30}}));
  const StepPlan next = PlanStep(With({{7, 0, 0, 0, 3000, 5, 512}}), options);
  EXPECT_EQ(next.kind, Kind::kContinue);
  EXPECT_EQ(next.pass, 5);
}

TEST(PlanStep, KeepsAPieceShortWhileOthersWait) {
  // A second is a hundred tokens through all pieces.
  const std::vector<SequenceWork> both = {{1, 0, 0, 0, 1}, {2, 1, 0, 1, 3000}};
  EXPECT_EQ(PlanStep(With(both), {}).parts, (Parts{{2, 100}}));
  PlanOptions pieces;
  pieces.pieces = 4;
  EXPECT_EQ(PlanStep(With(both), pieces).parts, (Parts{{2, 400}}));
  // Nothing is known yet, or pieces are very slow: the least that is worth it.
  EXPECT_EQ(PlanStep(With(both, 0), {}).parts, (Parts{{2, 32}}));
  EXPECT_EQ(PlanStep(With(both, 10), {}).parts, (Parts{{2, 32}}));
  EXPECT_EQ(PlanStep(With(both, 1e-9), {}).parts, (Parts{{2, 2048}}));
}

TEST(PlanStep, LetsDecodingCatchUp) {
  StepState state = With({{1, 0, 0, 0, 1}, {2, 1, 0, 1, 3000, 9, 100}});
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kContinue);
  state.owed_to_decoding_seconds = 0.5;
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{1, 1}}));
  // Once it has begun until nothing is owed, but not for a moment.
  state.owed_to_decoding_seconds = 0.01;
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kContinue);
  state.decoding_catches_up = true;
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kDecode);
  state.sequences.erase(state.sequences.begin());  // nobody decodes
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kContinue);
}

TEST(PlanStep, PutsHigherPrioritiesFirst) {
  StepState state = With({{1, 0, 0, 0, 3000, 9, 100}, {2, 1, 5, 1, 3000}});
  state.owed_to_first_seconds = 100;  // which is the one with the priority
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{2, 100}}));
}

TEST(PlanStep, ANewcomerPassesAPassUnderWay) {
  const StepPlan plan = PlanStep(
      With({{1, 0, 0, 0, 30000, 9, 100}, {2, 1, 0, 1, 60}, {3, 2, 0, 2, 30}, {4, 3, 0, 3, 20}}),
      {});
  EXPECT_EQ(plan.kind, Kind::kBegin);
  EXPECT_EQ(plan.parts, (Parts{{4, 20}, {3, 30}}));  // 60 more would not fit
  EXPECT_EQ(plan.first, 1);
}

TEST(PlanStep, LetsNobodyStarve) {
  // The first one's next piece is of 100 tokens: a second.
  StepState state = With({{1, 0, 0, 0, 30000, 9, 100}, {2, 1, 0, 1, 90}});
  state.owed_to_first_seconds = 0.9;
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{2, 90}}));
  state.owed_to_first_seconds = 1;
  EXPECT_EQ(PlanStep(state, {}).pass, 9);
  // The same if it has no pass under way.
  state.sequences[0].pass = -1;
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{1, 100}}));
}

TEST(PlanStep, PassesUnderWayAreFew) {
  std::vector<SequenceWork> works;
  for (int64_t i = 0; i < 4; ++i) works.push_back({i, i, 0, i, 1000 - i, i, 100});
  works.push_back({4, 4, 0, 4, 10});
  EXPECT_EQ(PlanStep(With(works), {}).pass, 3);  // the most urgent of them
  works.erase(works.begin());
  EXPECT_EQ(PlanStep(With(works), {}).parts, (Parts{{4, 10}}));
  // And their tokens.
  works = {{1, 1, 0, 1, 30000, 1, 2048}, {2, 2, 0, 2, 20000, 2, 2030}, {3, 3, 0, 3, 100}};
  EXPECT_EQ(PlanStep(With(works), {}).pass, 2);
  works[1].pass_tokens = 2000;
  EXPECT_EQ(PlanStep(With(works), {}).parts, (Parts{{3, 48}}));
}

TEST(PlanStep, AFirstTokenDoesNotWaitForDecoding) {
  StepState state = With({{1, 0, 0, 0, 30000, 9, 100}, {2, 1, 0, 1, 1}, {3, 2, 0, 2, 30}});
  state.owed_to_decoding_seconds = 0.9;
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{3, 30}}));
  // Unless more than a slice is owed to it.
  state.owed_to_decoding_seconds = 1.1;
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kDecode);
  // One whose end is not in its pass waits.
  state.sequences[2].remaining = 200;
  state.owed_to_decoding_seconds = 0.1;
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kDecode);
}

TEST(PlanStep, AFirstTokenThatOnlyWantsItsStepHasIt) {
  StepState state = With({{1, 0, 0, 0, 30000, 9, 100}, {2, 1, 0, 1, 1}});
  EXPECT_EQ(PlanStep(state, {}).kind, Kind::kContinue);
  state.sequences[1].first_token = true;
  EXPECT_EQ(PlanStep(state, {}).parts, (Parts{{2, 1}}));
}

TEST(PlanStep, CountsAClientOnce) {
  // One client with many short prompts is behind one with a single, slightly longer one.
  const StepPlan plan =
      PlanStep(With({{1, 0, 0, 0, 60}, {2, 0, 0, 1, 60}, {3, 0, 0, 2, 60}, {4, 9, 0, 3, 75}}), {});
  EXPECT_EQ(plan.parts, (Parts{{4, 75}}));
}

// The whole course with constant costs: a token of prefill 0.01 s, a step of decoding 0.1 s.
TEST(PlanStep, ANewcomerDoesNotWaitForALongPromptAndDecodingKeepsHalfItsSpeed) {
  constexpr double kToken = 0.01, kDecode = 0.1;
  constexpr int64_t kPieces = 4;
  PlanOptions options;
  options.pieces = kPieces;
  options.most_tokens = 300;
  for (const int64_t prompt : {16, 200, 1000}) {
    std::vector<SequenceWork> sequences = {{1, 1, 0, 0, 1}, {2, 2, 0, 1, 30000}};
    std::map<int64_t, int64_t> pieces_done;
    double time = 0, owed = 0, owed_first = 0, newcomer_seconds = 0;
    int64_t decoded = 0, passes = 0;
    bool came = false;
    const int64_t long_before = sequences[1].remaining;
    while (time < 200) {
      if (!came && time > 30) {
        sequences.push_back({3, 3, 0, 2, prompt});
        came = true;
        newcomer_seconds = -time;
      }
      const StepPlan plan = PlanStep({sequences, {kToken}, owed, true, owed_first}, options);
      if (plan.kind == Kind::kDecode) {
        time += kDecode;
        owed = std::max(0.0, owed - kDecode);
        ++decoded;
        continue;
      }
      const int64_t pass = plan.kind == Kind::kBegin ? passes++ : plan.pass;
      for (const StepPlan::Part& part : plan.parts) {
        for (SequenceWork& work : sequences)
          if (work.id == part.id) work.pass = pass, work.pass_tokens = part.tokens;
      }
      int64_t tokens = 0;
      bool firsts = false;
      for (const SequenceWork& work : sequences) {
        if (work.pass != pass) continue;
        tokens += work.pass_tokens;
        firsts |= work.id == plan.first;
      }
      const double seconds = kToken * static_cast<double>(tokens) / kPieces;
      time += seconds;
      owed += seconds;
      owed_first = firsts ? std::max(0.0, owed_first - seconds) : owed_first + seconds / 3;
      if (++pieces_done[pass] < kPieces) continue;
      for (SequenceWork& work : sequences) {
        if (work.pass != pass) continue;
        work.remaining -= work.pass_tokens;
        work.pass = -1;
        work.pass_tokens = 0;
        if (work.id == 3 && work.remaining == 0) newcomer_seconds += time;
      }
      std::erase_if(sequences, [](const SequenceWork& work) { return work.remaining == 0; });
    }
    const double alone = kDecode + kToken * static_cast<double>(prompt);
    EXPECT_GT(newcomer_seconds, 0) << prompt;
    EXPECT_LT(newcomer_seconds, 5 * alone) << prompt;
    EXPECT_GE(static_cast<double>(decoded), 0.5 * time / kDecode) << prompt;
    // Half of the time is for prefills.
    EXPECT_GT(static_cast<double>(long_before - sequences[1].remaining),
              0.9 * (time / 2 - alone) / kToken)
        << prompt;
  }
}

}  // namespace
}  // namespace toaster
