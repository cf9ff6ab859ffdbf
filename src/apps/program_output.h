#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "base/check.h"

namespace toaster::test {

/// What a run of the program printed, on both streams together, and its exit code.
struct ProgramOutput {
  std::string text;
  int exit_code = -1;
};

/// Runs the built program with `arguments`, as a shell reads them.
inline ProgramOutput RunProgram(const std::string& arguments) {
  const std::string command = std::string(TOASTER_PROGRAM) + " " + arguments + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  CHECK(pipe != nullptr, "{}", command);
  ProgramOutput output;
  char buffer[4096];
  for (size_t count; (count = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    output.text.append(buffer, count);
  }
  const int status = pclose(pipe);
  output.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

}  // namespace toaster::test
