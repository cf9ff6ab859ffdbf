// Which sequences an engine has, and from where they go on.

#include <algorithm>
#include <map>

#include "base/check.h"
#include "engine/engine_sequence.h"

namespace toaster {

namespace {

// Waiting for another's prompt saves at least so many tokens.
constexpr int64_t kLeastJoin = 32;

int64_t SharedTokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

}  // namespace

void Engine::DropCancelled() {
  const auto now = SteadyClock::now();
  const size_t before = waiting_.size();
  std::erase_if(waiting_, [](const auto& sequence) { return sequence->shared->cancelled.load(); });
  if (waiting_.size() < before) {
    const std::lock_guard lock(mutex_);
    accepted_ -= static_cast<int64_t>(before - waiting_.size());
    live_ -= static_cast<int64_t>(before - waiting_.size());
  }
  for (auto& sequence : sequences_) {
    if (sequence->done) continue;
    if (sequence->abandoned) {
      if (now >= sequence->give_up) GiveUp(*sequence);
    } else if (sequence->shared->cancelled) {
      sequence->abandoned = true;
      {
        const std::lock_guard lock(mutex_);
        --live_;
      }
      sequence->give_up = now + std::chrono::duration_cast<SteadyClock::duration>(
                                    std::chrono::duration<double>(limits_.linger_seconds));
      const bool rest = sequence->computed < sequence->target();
      if (!rest || limits_.linger_seconds <= 0) GiveUp(*sequence);
    }
  }
  // A pass goes on as long as anybody wants it.
  for (size_t i = passes_.size(); i-- > 0;) {
    Pass& pass = *passes_[i];
    const bool wanted = std::any_of(pass.sequences.begin(), pass.sequences.end(),
                                    [](const Sequence* sequence) { return !sequence->given_up; });
    if (wanted) continue;
    const std::vector<Sequence*> sequences = pass.sequences;
    AbortPass(pass);
    for (Sequence* sequence : sequences) Finish(*sequence, EngineEnd::kCancelled);
  }
  std::erase_if(sequences_, [](const auto& sequence) { return sequence->done; });
}

// Unless another waits for it.
void Engine::GiveUp(Sequence& sequence) {
  if (FirstJoin(sequence) > 0) return;
  sequence.given_up = true;
  if (sequence.pass < 0) Finish(sequence, EngineEnd::kCancelled);
}

void Engine::Admit() {
  for (;;) {
    std::map<std::string, int64_t> of_client;
    int64_t running = 0;
    for (const auto& sequence : sequences_) {
      if (sequence->abandoned) continue;
      ++running;
      if (!sequence->request.client.empty()) ++of_client[sequence->request.client];
    }
    if (waiting_.empty() || running >= limits_.most_running) return;
    // The highest priority; then whoever has the least running; then who came first.
    const auto next =
        std::min_element(waiting_.begin(), waiting_.end(), [&](const auto& a, const auto& b) {
          const EngineRequest &x = a->request, &y = b->request;
          if (x.priority != y.priority) return x.priority > y.priority;
          if (of_client[x.client] != of_client[y.client])
            return of_client[x.client] < of_client[y.client];
          return a->id < b->id;
        });
    std::unique_ptr<Sequence> sequence = std::move(*next);
    waiting_.erase(next);
    {
      const std::lock_guard lock(mutex_);
      --accepted_;
    }
    Start(*sequence);
    sequences_.push_back(std::move(sequence));
  }
}

void Engine::Start(Sequence& sequence) {
  sequence.started = SteadyClock::now();
  FindPrefix(sequence);
  FollowAnother(sequence);
  sequence.figures.cached_tokens = sequence.computed;
  sequence.figures.queue_seconds =
      std::chrono::duration<double>(sequence.started - sequence.submitted).count();
  counters_.cached_tokens += sequence.computed;
}

// Memory, then disk, then nothing: the longest place wins, and of equal ones the nearer. What the
// sequence has already stays unless there is a longer one.
void Engine::FindPrefix(Sequence& sequence) {
  const std::string& owner = sequence.request.owner;
  PrefixCache::Hit hit = prefixes_.Find(owner, sequence.tokens);
  if (sequence.cache == nullptr || hit.tokens > sequence.computed) {
    sequence.computed = hit.tokens;
    sequence.cache = std::move(hit.cache);
    sequence.store_bytes = nullptr;
    sequence.figures.miss_reason = std::move(hit.miss_reason);
    sequence.figures.cached_in = sequence.computed > 0 ? "memory" : "";
  }
  if (store_ != nullptr && sequence.computed + 1 < sequence.size()) {
    PrefixStore::Hit stored = store_->Find(owner, sequence.tokens, sequence.computed);
    if (stored.cache != nullptr) {
      sequence.computed = stored.tokens;
      sequence.cache = std::move(stored.cache);
      sequence.store_bytes = std::move(stored.bytes_read);
      sequence.figures.cached_in = "disk";
      sequence.figures.miss_reason =
          sequence.computed + 1 == sequence.size() ? "" : "the rest is new";
      prefixes_.Keep(owner, sequence.computed_tokens(), *sequence.cache);
    }
  }
  if (sequence.cache == nullptr) sequence.cache = running_.model().NewCache();
}

bool Engine::IsStorePlace(const Sequence& sequence) const {
  return store_ != nullptr && (sequence.computed == sequence.request.stable_tokens ||
                               sequence.computed % store_->spacing() == 0);
}

Engine::Sequence* Engine::FindSequence(int64_t id) const {
  for (const auto& sequence : sequences_) {
    if (sequence->id == id && !sequence->done) return sequence.get();
  }
  return nullptr;
}

// Looks for a prompt that is being read and begins like this one: the one that saves most. Where
// its pass under way goes too far already, what it had before is taken.
void Engine::FollowAnother(Sequence& sequence) {
  Sequence *best = nullptr, *nearest = nullptr;
  int64_t join = sequence.computed + kLeastJoin - 1, at_hand = sequence.computed;
  for (const auto& item : sequences_) {
    Sequence& other = *item;
    if (&other == &sequence || other.done || other.given_up || other.leader >= 0 ||
        other.request.owner != sequence.request.owner) {
      continue;
    }
    const int64_t shared =
        std::min({SharedTokens(sequence.tokens, other.request.prompt), sequence.size() - 1,
                  std::min(other.target(), other.prompt_size())});
    if (other.computed > shared) continue;  // its windows have moved on
    if (other.computed > at_hand) at_hand = other.computed, nearest = &other;
    if (other.computed + other.pass_tokens <= shared && shared > join) join = shared, best = &other;
  }
  if (best != nullptr) {
    sequence.leader = best->id;
    sequence.join = join;
  } else if (nearest != nullptr) {
    TakeFrom(*nearest, sequence);
  }
}

// Goes on from where the other stands; one whose client has gone hands it over.
void Engine::TakeFrom(Sequence& leader, Sequence& sequence) {
  if (leader.computed > sequence.computed) {
    if (leader.abandoned && leader.pass < 0) {
      sequence.cache = std::move(leader.cache);
      leader.done = true;
    } else {
      sequence.cache = leader.cache->Fork();
      for (const auto& pass : passes_) {
        for (size_t i = 0; i < pass->snapshots.size(); ++i) {
          if (pass->sequences[i] == &leader) sequence.cache->Restore(pass->snapshots[i]);
        }
      }
    }
    sequence.store_bytes = leader.store_bytes;
    sequence.computed = leader.computed;
    sequence.figures.cached_in = "memory";
    sequence.figures.miss_reason = "";
    if (sequence.computed + 1 < sequence.size()) {
      sequence.figures.miss_reason =
          leader.abandoned ? "a prefill that was broken off is gone on with" : "the rest is new";
    }
  }
  sequence.leader = -1;
}

// Lets those go on whose leader has come to where they part, has been left by its client, or is
// there no more.
void Engine::JoinLeaders() {
  for (const auto& item : sequences_) {
    Sequence& sequence = *item;
    if (sequence.done || sequence.leader < 0) continue;
    Sequence* const leader = FindSequence(sequence.leader);
    const int64_t before = sequence.computed;
    if (leader == nullptr || leader->computed > sequence.join) {
      sequence.leader = -1;
      FindPrefix(sequence);
      FollowAnother(sequence);
    } else if (leader->pass < 0 && (leader->computed == sequence.join || leader->abandoned)) {
      TakeFrom(*leader, sequence);
    }
    sequence.figures.cached_tokens = sequence.computed;
    counters_.cached_tokens += sequence.computed - before;
  }
  std::erase_if(sequences_, [](const auto& sequence) { return sequence->done; });
}

// The nearest place where another waits for this one; 0: none.
int64_t Engine::FirstJoin(const Sequence& leader) const {
  int64_t join = 0;
  for (const auto& other : sequences_) {
    if (other->done || other->given_up || other->leader != leader.id) continue;
    if (join == 0 || other->join < join) join = other->join;
  }
  return join;
}

void Engine::Finish(Sequence& sequence, EngineEnd end) {
  sequence.done = true;
  if (!sequence.abandoned) {
    const std::lock_guard lock(mutex_);
    --live_;
  }
  CHECK(sequence.pass < 0, "sequence {} ends in the middle of a pass", sequence.id);
  if (sequence.computed > 0) {
    prefixes_.Keep(sequence.request.owner, sequence.computed_tokens(), *sequence.cache);
  }
  {
    const std::lock_guard lock(sequence.shared->mutex);
    sequence.shared->ended = true;
    sequence.shared->end = end;
    sequence.shared->figures = sequence.figures;
  }
  sequence.shared->wake.notify_one();
  if (sequence.computed > 0 && store_ != nullptr) {
    store_->Put(sequence.request.owner, sequence.computed_tokens(), *sequence.cache);
  }
}

}  // namespace toaster
