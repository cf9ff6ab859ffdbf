#include "engine/plan_step.h"

#include <algorithm>
#include <map>
#include <set>

namespace toaster {

namespace {

constexpr size_t kMostPasses = 4;  // each keeps the streams of its tokens

// Of a new pass.
int64_t PassTokens(const StepState& state, const PlanOptions& options) {
  // Alone, a prefill has nobody to make room for.
  if (state.sequences.size() <= 1) return options.most_tokens;
  const double piece_seconds =
      state.costs.prefill_token_seconds / static_cast<double>(options.pieces);
  if (piece_seconds <= 0) return options.least_tokens;
  const double tokens = options.prefill_slice_seconds / piece_seconds;
  return std::clamp(static_cast<int64_t>(std::min(tokens, 1e9)), options.least_tokens,
                    options.most_tokens);
}

// Prefills in the order of their urgency.
std::vector<SequenceWork> SortedPrefills(const StepState& state) {
  std::vector<SequenceWork> prefills;
  std::map<int64_t, int64_t> client_remaining;
  for (const SequenceWork& work : state.sequences) {
    if (work.remaining <= 1 && work.pass < 0) continue;
    prefills.push_back(work);
    client_remaining[work.client] += work.remaining;
  }
  std::sort(prefills.begin(), prefills.end(), [&](const SequenceWork& a, const SequenceWork& b) {
    if (a.priority != b.priority) return a.priority > b.priority;
    if (a.client != b.client && client_remaining[a.client] != client_remaining[b.client])
      return client_remaining[a.client] < client_remaining[b.client];
    if (a.remaining != b.remaining) return a.remaining < b.remaining;
    return a.arrival < b.arrival;
  });
  return prefills;
}

// A pass of `tokens` for prompts that come to their end with it, or for a piece of the next one.
std::vector<StepPlan::Part> NewPass(const std::vector<SequenceWork>& prefills, int64_t tokens) {
  std::vector<StepPlan::Part> parts;
  int64_t left = tokens;
  for (const SequenceWork& work : prefills) {
    if (work.pass >= 0) continue;
    if (work.remaining > left) {
      if (parts.empty()) parts.push_back({work.id, left});
      break;
    }
    parts.push_back({work.id, work.remaining});
    left -= work.remaining;
  }
  return parts;
}

}  // namespace

StepPlan PlanStep(const StepState& state, const PlanOptions& options) {
  StepPlan decode;
  bool first_token = false;
  for (const SequenceWork& work : state.sequences) {
    if (work.remaining > 1 || work.pass >= 0) continue;
    decode.kind = StepPlan::Kind::kDecode;
    decode.parts.push_back({work.id, 1});
    first_token |= work.first_token;
  }
  const std::vector<SequenceWork> prefills = SortedPrefills(state);
  const double owed = decode.parts.empty() ? 0 : state.owed_to_decoding_seconds;
  if (prefills.empty() || first_token || owed > options.prefill_slice_seconds) return decode;

  const SequenceWork& first = *std::min_element(
      prefills.begin(), prefills.end(), [](const SequenceWork& a, const SequenceWork& b) {
        return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
      });
  int64_t tokens_under_way = 0;
  std::set<int64_t> passes;
  for (const SequenceWork& work : prefills) {
    if (work.pass < 0) continue;
    passes.insert(work.pass);
    tokens_under_way += work.pass_tokens;
  }
  const int64_t room =
      std::min(PassTokens(state, options), 2 * options.most_tokens - tokens_under_way);

  // The most urgent one, unless the first one's piece is due.
  const int64_t first_tokens =
      first.pass >= 0 ? first.pass_tokens : std::min(room, first.remaining);
  const double first_seconds = state.costs.prefill_token_seconds *
                               static_cast<double>(first_tokens) /
                               static_cast<double>(options.pieces);
  const bool firsts_turn =
      state.owed_to_first_seconds > 0 && state.owed_to_first_seconds >= first_seconds;
  const SequenceWork* chosen = firsts_turn ? &first : &prefills.front();
  if (chosen->pass < 0 && (passes.size() >= kMostPasses || room < options.least_tokens)) {
    chosen = &*std::find_if(prefills.begin(), prefills.end(),
                            [](const SequenceWork& work) { return work.pass >= 0; });
  }

  StepPlan plan;
  plan.first = first.id;
  bool ends = false;  // a prompt with this pass
  if (chosen->pass >= 0) {
    plan.kind = StepPlan::Kind::kContinue;
    plan.pass = chosen->pass;
    for (const SequenceWork& work : prefills)
      ends |= work.pass == chosen->pass && work.pass_tokens == work.remaining;
  } else {
    plan.kind = StepPlan::Kind::kBegin;
    plan.parts = firsts_turn ? NewPass({first}, room) : NewPass(prefills, room);
    for (const SequenceWork& work : prefills)
      ends |= work.id == plan.parts[0].id && work.remaining == plan.parts[0].tokens;
  }
  const bool decodes =
      owed > 0 && !ends && (state.decoding_catches_up || owed >= options.turn_seconds);
  return decodes ? decode : plan;
}

}  // namespace toaster
