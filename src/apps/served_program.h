#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/check.h"

namespace toaster::test {

/// `toaster serve --port 0 -q` with these further arguments.
class Served {
 public:
  explicit Served(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {TOASTER_PROGRAM, "serve", "--port", "0", "-q"});
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    int ends[2];
    CHECK(pipe(ends) == 0);
    process_ = fork();
    CHECK(process_ >= 0);
    if (process_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      close(ends[0]);
      execv(TOASTER_PROGRAM, pointers.data());
      _exit(127);
    }
    close(ends[1]);
    // The address is printed when the model is there.
    std::string address;
    for (char c; read(ends[0], &c, 1) == 1 && c != '\n';) address += c;
    close(ends[0]);
    port_ = std::atoi(address.substr(address.rfind(':') + 1).c_str());
  }
  ~Served() {
    if (process_ > 0) kill(process_, SIGKILL);
    if (process_ > 0) waitpid(process_, nullptr, 0);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  int port() const { return port_; }
  pid_t process() const { return process_; }
  void Signal(int signal) const { kill(process_, signal); }
  int ExitCode() {
    int status = 0;
    waitpid(process_, &status, 0);
    process_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t process_ = 0;
  int port_ = 0;
};

}  // namespace toaster::test
