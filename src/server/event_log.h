#pragma once

#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>

#include "server/api_error.h"

namespace toaster {

/// Writes what happens as lines of JSON: time, level, event, and what belongs to it. Never the text
/// of prompts or replies, and never a key. Any thread.
class EventLog {
 public:
  /// nullptr: writes nothing. The file is borrowed.
  explicit EventLog(std::FILE* file) : file_(file) {}
  void Write(std::string_view level, std::string_view event, const OrderedJson& details);

 private:
  std::FILE* file_;
  std::mutex mutex_;
};

}  // namespace toaster
