#include "engine/plan_step.h"

#include <algorithm>
#include <map>

namespace toaster {

namespace {

int64_t SliceTokens(const StepState& state, const PlanOptions& options, size_t waiting) {
  // Alone, a prefill has nobody to make room for.
  if (waiting <= 1) return options.most_tokens;
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
  const bool decoding = !plan.parts.empty();
  if (prefills.empty() || (decoding && state.owed_to_decoding_seconds > 0)) return plan;

  int64_t left = SliceTokens(state, options, state.sequences.size());
  std::map<int64_t, int64_t> client_remaining;
  for (const SequenceWork& work : prefills) client_remaining[work.client] += work.remaining;
  std::map<int64_t, int64_t> given;  // by id
  const auto give = [&](const SequenceWork& work, int64_t most) {
    const int64_t tokens = std::min({most, left, work.remaining - given[work.id]});
    given[work.id] += tokens;
    left -= tokens;
  };

  std::sort(prefills.begin(), prefills.end(), [](const SequenceWork& a, const SequenceWork& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
  });
  give(prefills.front(), std::max<int64_t>(1, left / 4));
  std::stable_sort(prefills.begin(), prefills.end(),
                   [&](const SequenceWork& a, const SequenceWork& b) {
                     if (a.priority != b.priority) return a.priority > b.priority;
                     if (a.client != b.client)
                       return client_remaining[a.client] < client_remaining[b.client];
                     return a.remaining < b.remaining;
                   });
  for (const SequenceWork& work : prefills) give(work, left);
  for (const SequenceWork& work : prefills) {
    if (given[work.id] == 0) continue;
    plan.parts.push_back({work.id, given[work.id]});
    plan.prefill_tokens += given[work.id];
  }
  return plan;
}

}  // namespace toaster
