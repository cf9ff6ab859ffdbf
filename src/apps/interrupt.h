#pragma once

namespace toaster {

/// Takes Ctrl-C (SIGINT) while it lives. One at a time.
class InterruptScope {
 public:
  enum class Second {
    kKills,  ///< a second Ctrl-C ends the program at once
    kSame,   ///< a second one is as good as one
  };
  explicit InterruptScope(Second second);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  /// Whether Ctrl-C was pressed since the beginning or the last Clear().
  static bool Raised();
  static void Clear();
};

}  // namespace toaster
