#include "apps/status_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace toaster {

StatusLine::StatusLine()
    : on_(isatty(STDERR_FILENO) != 0), due_(Clock::now() + std::chrono::milliseconds(500)) {}

bool StatusLine::Due() const { return on_ && Clock::now() >= due_; }

void StatusLine::Show(std::string_view text) {
  if (!Due()) return;
  fmt::print(stderr, "\r{}\033[K", text);
  std::fflush(stderr);
  shown_ = true;
  due_ = Clock::now() + std::chrono::milliseconds(100);
}

void StatusLine::Clear() {
  if (shown_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

}  // namespace toaster
