#pragma once

#include <chrono>
#include <string_view>

namespace toaster {

/// One line on standard error that is rewritten while something takes long. Shows nothing in the
/// first half second, and nothing at all where standard error is no terminal.
class StatusLine {
 public:
  StatusLine();
  ~StatusLine() { Clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  /// Whether Show() would show something: the line changes ten times a second at most.
  bool Due() const;
  void Show(std::string_view text);
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  bool on_, shown_ = false;
  Clock::time_point due_;
};

}  // namespace toaster
