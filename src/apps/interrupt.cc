#include "apps/interrupt.h"

#include <atomic>
#include <csignal>

namespace toaster {
namespace {

// Signal handlers reach nothing but this.
std::atomic<bool> raised = false;

void OnInterrupt(int) { raised = true; }

}  // namespace

InterruptScope::InterruptScope(Second second) {
  raised = false;
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  if (second == Second::kKills) action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
}

InterruptScope::~InterruptScope() { std::signal(SIGINT, SIG_DFL); }

bool InterruptScope::Raised() { return raised; }
void InterruptScope::Clear() { raised = false; }

}  // namespace toaster
