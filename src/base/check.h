#pragma once

#include <fmt/format.h>

#include <string>

namespace toaster {

/// Prints file, line, condition and message to standard error and aborts. Used by CHECK alone.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& message);

}  // namespace toaster

/// Stops the program on a bug, in every build. The message shows the values involved:
/// CHECK(row < rows, "row {} of {}", row, rows). Bad input is an Error, never a CHECK.
#define CHECK(condition, ...)                                                                \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::toaster::CheckFailed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)
