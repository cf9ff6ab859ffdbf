#include "engine/plan_step.h"

#include <algorithm>
#include <map>

namespace toaster {

namespace {

int64_t SliceTokens(const StepState& state, const PlanOptions& options) {
  // Alone, a prefill has nobody to make room for.
  if (state.sequences.size() <= 1) return options.most_tokens;
  if (state.costs.prefill_token_seconds <= 0) return options.least_tokens;
  const double tokens = options.prefill_slice_seconds / state.costs.prefill_token_seconds;
  return std::clamp(static_cast<int64_t>(std::min(tokens, 1e9)), options.least_tokens,
                    options.most_tokens);
}

}  // namespace

StepPlan PlanStep(const StepState& state, const PlanOptions& options) {
  StepPlan plan;
  std::vector<SequenceWork> prefills;
  for (const SequenceWork& work : state.sequences) {
    if (work.remaining > 1) {
      prefills.push_back(work);
    } else {
      plan.parts.push_back({work.id, 1});
    }
  }
  const double owed = plan.parts.empty() ? 0 : state.owed_to_decoding_seconds;
  if (prefills.empty() || owed > options.prefill_slice_seconds) return plan;

  std::map<int64_t, int64_t> client_remaining;
  for (const SequenceWork& work : prefills) client_remaining[work.client] += work.remaining;
  const SequenceWork first = *std::min_element(
      prefills.begin(), prefills.end(), [](const SequenceWork& a, const SequenceWork& b) {
        return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
      });
  std::sort(prefills.begin(), prefills.end(), [&](const SequenceWork& a, const SequenceWork& b) {
    if (a.priority != b.priority) return a.priority > b.priority;
    if (a.client != b.client && client_remaining[a.client] != client_remaining[b.client])
      return client_remaining[a.client] < client_remaining[b.client];
    if (a.remaining != b.remaining) return a.remaining < b.remaining;
    return a.arrival < b.arrival;
  });

  int64_t left = SliceTokens(state, options), ended = 0;
  const int64_t share = std::max<int64_t>(1, left / 4);
  const auto give = [&](const SequenceWork& work, int64_t tokens) {
    plan.parts.push_back({work.id, tokens});
    plan.prefill_tokens += tokens;
    left -= tokens;
  };
  bool first_ends = false;
  size_t next = 0;
  for (; next < prefills.size() && prefills[next].remaining <= left - share; ++next) {
    give(prefills[next], prefills[next].remaining);
    ended += prefills[next].remaining;
    first_ends |= prefills[next].id == first.id;
  }
  if (ended > 0) {
    if (!first_ends)
      give(first, std::clamp<int64_t>(ended / 3, 1, std::min(share, first.remaining)));
    return plan;
  }
  if (owed > 0) return plan;
  const int64_t kept = std::min(share, first.remaining);
  left -= kept;
  for (const SequenceWork& work : prefills) {
    const int64_t own = work.id == first.id ? kept : 0;
    left += own;
    const int64_t tokens = std::min(left, work.remaining);
    if (tokens > 0) give(work, tokens);
  }
  return plan;
}

}  // namespace toaster
