#pragma once

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"

namespace toaster::test {

/// The built program behind a pseudo terminal of 80 columns.
class ProgramTerminal {
 public:
  /// `home` holds its history. Colours are off.
  ProgramTerminal(const std::vector<std::string>& arguments, const std::string& home) {
    std::vector<std::string> words = arguments;
    words.insert(words.begin(), TOASTER_PROGRAM);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    winsize size = {24, 80, 0, 0};
    process_ = forkpty(&terminal_, nullptr, nullptr, &size);
    CHECK(process_ >= 0, "forkpty");
    if (process_ > 0) return;
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "1", 1);
    setenv("HOME", home.c_str(), 1);
    setenv("XDG_STATE_HOME", (home + "/state").c_str(), 1);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~ProgramTerminal() {
    close(terminal_);
    if (!ended_) {
      kill(process_, SIGKILL);
      waitpid(process_, nullptr, 0);
    }
  }
  ProgramTerminal(const ProgramTerminal&) = delete;
  ProgramTerminal& operator=(const ProgramTerminal&) = delete;

  /// Types `keys`, reading what the program writes meanwhile.
  void Type(std::string_view keys) {
    const auto deadline = Deadline();
    while (!keys.empty()) {
      CHECK(std::chrono::steady_clock::now() < deadline, "the program takes no input: {}", output_);
      pollfd descriptor = {terminal_, POLLIN | POLLOUT, 0};
      poll(&descriptor, 1, 1000);
      if (descriptor.revents & POLLIN) ReadSome();
      if (!(descriptor.revents & POLLOUT)) continue;
      // Little at a time: a write that the terminal has no room for would block.
      const ssize_t count = write(terminal_, keys.data(), std::min<size_t>(keys.size(), 256));
      if (count > 0) keys.remove_prefix(static_cast<size_t>(count));
    }
  }

  /// Waits until the program has written `text` after what was waited for before; returns what
  /// came until its end. Empty, after a generous time, if it never comes.
  std::string WaitFor(std::string_view text) {
    const auto deadline = Deadline();
    for (;;) {
      if (const size_t place = output_.find(text); place != output_.npos) {
        std::string before = output_.substr(0, place + text.size());
        output_.erase(0, before.size());
        return before;
      }
      if (!WaitForOutput(deadline)) return "";
    }
  }
  /// Waits until `count` more bytes have come.
  bool WaitForBytes(size_t count) {
    const auto deadline = Deadline();
    while (output_.size() < count) {
      if (!WaitForOutput(deadline)) return false;
    }
    output_.clear();
    return true;
  }
  /// What has come since.
  const std::string& output() const { return output_; }

  void Resize(uint16_t columns) {
    const winsize size = {24, columns, 0, 0};
    CHECK(ioctl(terminal_, TIOCSWINSZ, &size) == 0);
  }

  /// Waits for the end of the program; its exit code, or -1.
  int Wait() {
    const auto deadline = Deadline();
    while (WaitForOutput(deadline)) {
    }
    int status = 0;
    if (std::chrono::steady_clock::now() >= deadline) return -1;
    waitpid(process_, &status, 0);
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  using Time = std::chrono::steady_clock::time_point;
  // Far beyond what any machine takes; reached by failures only.
  static Time Deadline() { return std::chrono::steady_clock::now() + std::chrono::minutes(3); }

  bool WaitForOutput(Time deadline) {
    while (std::chrono::steady_clock::now() < deadline) {
      pollfd descriptor = {terminal_, POLLIN, 0};
      if (poll(&descriptor, 1, 1000) > 0) return ReadSome();
    }
    return false;
  }
  /// False at the end.
  bool ReadSome() {
    char bytes[4096];
    const ssize_t count = read(terminal_, bytes, sizeof bytes);
    if (count <= 0) return false;
    output_.append(bytes, static_cast<size_t>(count));
    return true;
  }

  int terminal_ = -1;
  pid_t process_ = -1;
  bool ended_ = false;
  std::string output_;
};

}  // namespace toaster::test
