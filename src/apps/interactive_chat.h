#pragma once

#include "apps/chat_session.h"

namespace toaster {

struct InteractiveOptions {
  std::string title;  ///< what runs, for the greeting
  bool folded = false;
  int64_t seed = 0;  ///< for /stats
};

/// A chat in the terminal until the person leaves. Returns the program's exit code.
int RunInteractiveChat(ChatSession& chat, RunningModel& running, const InteractiveOptions& options);

}  // namespace toaster
