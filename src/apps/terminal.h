#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace toaster {

/// A line of input from a person.
struct TerminalLine {
  enum class Kind {
    kText,
    kInterrupted,  ///< Ctrl-C; the line is lost
    kEnd,          ///< Ctrl-D on an empty line, or the terminal is gone
  };
  Kind kind = Kind::kText;
  std::string typed;  ///< as it stands on the screen, pastes as their labels
  std::string text;   ///< with the pastes themselves
};

/// The terminal on standard input and output, with line editing and history. Pastes of several
/// lines or many bytes show as a label and count as one piece. While no line is read, keys are not
/// echoed, Ctrl-C still raises SIGINT, and what is typed waits for the next line. The destructor
/// gives the terminal back as it was.
///
/// At most one at a time; an InterruptScope has to live around it. Sets the locale of characters
/// (LC_CTYPE) to one with UTF-8.
class Terminal {
 public:
  /// Reads the history from `history_file`, a line per entry, and adds to it what is typed (not
  /// lines with pastes in them); only the owner may read it. An empty path keeps none.
  explicit Terminal(std::filesystem::path history_file);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Reads a line with `prompt` in front. A line that ends with a backslash goes on in the next.
  TerminalLine Read(const std::string& prompt);

  struct State;

 private:
  std::unique_ptr<State> state_;
};

/// Where the history belongs: $XDG_STATE_HOME/toaster/history, or below ~/.local/state; empty if
/// there is no home.
std::filesystem::path DefaultHistoryFile();

}  // namespace toaster
