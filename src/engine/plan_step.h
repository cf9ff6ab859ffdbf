#pragma once

// What the next forward pass computes: a pure function, so that fairness is tested without a model.

#include <cstdint>
#include <vector>

namespace toaster {

/// A sequence that runs, as the planner sees it.
struct SequenceWork {
  int64_t id = 0;
  int64_t client = 0;     ///< whoever shares a name shares a turn
  int64_t priority = 0;   ///< higher goes first
  int64_t arrival = 0;    ///< rising with time
  int64_t remaining = 1;  ///< known tokens that are not computed; 1: it decodes
};

/// What steps cost here, as measured so far.
struct StepCosts {
  double prefill_token_seconds = 0;  ///< of one more token of a prefill; 0: not known
};

struct PlanOptions {
  int64_t most_tokens = 2048;          ///< of prefill in one step
  int64_t least_tokens = 32;           ///< of prefill in one step: fewer would waste the weights
  double prefill_slice_seconds = 1.0;  ///< a step lasts about so long while others wait for it
};

struct StepState {
  std::vector<SequenceWork> sequences;
  StepCosts costs;
  /// Time that prefills have had since decoding last had as much for itself.
  double owed_to_decoding_seconds = 0;
};

struct StepPlan {
  struct Part {
    int64_t id = 0;
    int64_t tokens = 0;
    bool operator==(const Part&) const = default;
  };
  std::vector<Part> parts;
  int64_t prefill_tokens = 0;  ///< of them
};

/// Every sequence that decodes gets its token in every step. Prefills get a slice of tokens beside
/// them, then decoding gets as much time for itself, so it keeps at least half its speed. Within a
/// slice, higher priorities go first; among equals a quarter goes to who came first, so that nobody
/// starves, and the rest to the client with the least left to read, and of its prompts the shortest
/// first, so that a newcomer's short prompt does not wait for a long one. Where prompts come to
/// their end with the slice, it is only as long as they and that quarter are: their first tokens do
/// not wait for the rest of others. They do not wait for decoding, either, unless more than a slice
/// is owed to it.
StepPlan PlanStep(const StepState& state, const PlanOptions& options);

}  // namespace toaster
