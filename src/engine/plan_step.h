#pragma once

// What an engine computes next: a pure function, so that fairness is tested without a model.

#include <cstdint>
#include <vector>

namespace toaster {

/// A sequence that runs, as the planner sees it.
struct SequenceWork {
  int64_t id = 0;
  int64_t client = 0;        ///< whoever shares a name shares a turn
  int64_t priority = 0;      ///< higher goes first
  int64_t arrival = 0;       ///< rising with time
  int64_t remaining = 1;     ///< known tokens that are not computed; 1: it decodes
  int64_t pass = -1;         ///< the pass under way that it is in; -1: none
  int64_t pass_tokens = 0;   ///< of the remaining ones, in that pass
  bool first_token = false;  ///< it decodes and has no token yet
};

/// What steps cost here, as measured so far.
struct StepCosts {
  double prefill_token_seconds = 0;  ///< of one token of a prefill, all layers; 0: not known
};

struct PlanOptions {
  int64_t most_tokens = 2048;          ///< in one pass; twice that in all that are under way
  int64_t least_tokens = 32;           ///< in one pass: fewer would waste the weights
  int64_t pieces = 1;                  ///< halves of layers, that a pass consists of
  double turn_seconds = 0.02;          ///< decoding and prefills take turns of at least this length
  double prefill_slice_seconds = 1.0;  ///< a piece lasts at most about so long while others wait
};

struct StepState {
  std::vector<SequenceWork> sequences;
  StepCosts costs;
  /// Time that is due to decoding for what prefills had.
  double owed_to_decoding_seconds = 0;
  bool decoding_catches_up = false;  ///< the last step was for what is owed to it
  /// A third of the time that other prefills had while the one that came first waited.
  double owed_to_first_seconds = 0;
};

struct StepPlan {
  enum class Kind {
    kNothing,
    kDecode,    ///< a whole pass over `parts`, a token of each
    kBegin,     ///< a prefill pass over `parts` begins, with its first piece
    kContinue,  ///< `pass` goes on by a piece
  };
  struct Part {
    int64_t id = 0;
    int64_t tokens = 0;
    bool operator==(const Part&) const = default;
  };
  Kind kind = Kind::kNothing;
  int64_t pass = -1;
  std::vector<Part> parts;
  int64_t first = -1;  ///< the prefill to which a part of the time belongs
};

/// Prefill passes go on piece by piece, so that nothing waits for a whole one. After a turn of
/// theirs, decoding has the time that is owed to it: as much as they had, or more, and it keeps at
/// least half its speed. A first token that only wants its step has it at once. Among prefills,
/// higher priorities go first; among equals the client with the least left to read, and of its
/// prompts the shortest, so that a newcomer's short prompt passes a long one's pass under way. A
/// quarter of their time belongs to who came first, so that nobody starves. Prompts that come to
/// their end with their pass wait neither for the rest of others nor for decoding, unless more than
/// a slice is owed to that.
StepPlan PlanStep(const StepState& state, const PlanOptions& options);

}  // namespace toaster
