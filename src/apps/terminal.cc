#include "apps/terminal.h"

#include <fmt/format.h>
#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <deque>
#include <fstream>
#include <map>

#include "apps/interrupt.h"
#include "apps/paste_input.h"
#include "apps/private_file.h"
#include "apps/user_directory.h"
#include "base/check.h"
#include "base/error.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr size_t kHistoryLines = 1000;
constexpr int kQuietMilliseconds = 100;

// Signal handlers reach nothing but these.
std::atomic<bool> resized = false;
std::atomic<bool> continued = false;

void SetHandler(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

/// libedit counts characters, so it has to know that they are UTF-8.
void UseUtf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::string_view(nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
}

void WriteScreen(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

struct Terminal::State {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::filesystem::path history_file;
  std::string prompt;
  PasteInput input;
  std::deque<wchar_t> characters;             ///< decided, on their way to libedit
  std::map<std::string, std::string> pastes;  ///< by label
  bool interrupted = false;

  static State& Of(EditLine* line) {
    void* data = nullptr;
    el_get(line, EL_CLIENTDATA, &data);
    return *static_cast<State*>(data);
  }

  void AddHistory(const std::string& line) const {
    HistEvent event;
    ::history(history, &event, H_ENTER, line.c_str());
  }

  void Give(std::string_view text) {
    while (!text.empty()) {
      const Utf8Character character = FirstCharacter(text);
      CHECK(character.length > 0, "pieces of input are well formed");
      characters.push_back(static_cast<wchar_t>(character.code_point));
      text.remove_prefix(character.length);
    }
  }

  void GivePaste(const std::string& text) {
    const std::string label = PasteLabel(text, pastes.size() + 1);
    if (label != text) pastes[label] = text;
    Give(label);
  }

  /// Waits for bytes. 1: some came; 0: quiet; -1: the end; -2: a signal.
  int Wait(bool until_quiet) {
    sigset_t ours, before;
    sigemptyset(&ours);
    for (const int signal : {SIGINT, SIGWINCH, SIGCONT}) sigaddset(&ours, signal);
    // Blocked but for the wait itself, so that none comes between the look and the wait.
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    int result = -2;
    if (!InterruptScope::Raised() && !resized && !continued) {
      pollfd descriptor = {STDIN_FILENO, POLLIN, 0};
      const timespec moment = {0, kQuietMilliseconds * 1000000L};
      result = ppoll(&descriptor, 1, until_quiet ? &moment : nullptr, &before);
      if (result < 0) result = errno == EINTR ? -2 : -1;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (result != 1) return result;
    char bytes[4096];
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return -2;
    if (count <= 0) return -1;
    input.Push({bytes, static_cast<size_t>(count)});
    return 1;
  }

  /// The next character for libedit: 1, or 0 at the end, or -1 for Ctrl-C.
  int Next(wchar_t& character) {
    bool quiet = false;
    for (;;) {
      if (!characters.empty()) {
        character = characters.front();
        characters.pop_front();
        return 1;
      }
      if (const auto piece = input.Next(quiet)) {
        if (piece->paste) {
          GivePaste(piece->text);
        } else {
          Give(piece->text);
        }
        continue;
      }
      const int waited = Wait(input.Undecided() && !quiet);
      if (waited == -1) return 0;
      quiet = waited == 0;
      if (waited != -2) continue;
      if (InterruptScope::Raised()) {
        InterruptScope::Clear();
        interrupted = true;
        input.Clear();
        return -1;
      }
      if (continued.exchange(false)) {
        el_set(editor, EL_PREP_TERM, 0);
        el_set(editor, EL_PREP_TERM, 1);
        el_set(editor, EL_REFRESH);
      }
      if (resized.exchange(false)) Redraw();
    }
  }

  /// Draws the line again where it begins. libedit itself would draw it behind the cursor, since it
  /// does not know where a resized terminal has put what was there.
  void Redraw() {
    el_resize(editor);
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      const LineInfoW* line = el_wline(editor);
      size_t columns = prompt.size();
      for (const wchar_t* at = line->buffer; at < line->cursor; ++at)
        columns += static_cast<size_t>(std::max(wcwidth(*at), 0));
      const size_t rows = columns / size.ws_col;
      WriteScreen((rows > 0 ? fmt::format("\033[{}A", rows) : "") + "\r\033[J");
    }
    el_set(editor, EL_REFRESH);
  }

  std::string Expand(std::string_view typed) const {
    std::string text;
    while (!typed.empty()) {
      size_t first = typed.size();
      const std::pair<const std::string, std::string>* found = nullptr;
      for (const auto& paste : pastes) {
        const size_t place = typed.find(paste.first);
        if (place >= first) continue;
        first = place;
        found = &paste;
      }
      text += typed.substr(0, first);
      if (!found) break;
      text += found->second;
      typed.remove_prefix(first + found->first.size());
    }
    return text;
  }

  /// One line of the screen, without its end. False at the end or at Ctrl-C.
  bool ReadLine(std::string& line) {
    interrupted = false;
    int count = 0;
    el_resize(editor);
    const char* read = el_gets(editor, &count);
    if (!read || count <= 0 || interrupted) return false;
    line.assign(read, static_cast<size_t>(count));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    return true;
  }

  void LoadHistory() {
    std::ifstream stream(history_file, std::ios::binary);
    std::deque<std::string> lines;
    size_t count = 0;
    for (std::string line; std::getline(stream, line); ++count) {
      lines.push_back(ReplaceIllFormed(line));
      if (lines.size() > kHistoryLines) lines.pop_front();
    }
    std::string kept;
    for (const std::string& line : lines) {
      AddHistory(line);
      kept += line + "\n";
    }
    if (count > 2 * kHistoryLines) WritePrivateFile(history_file, kept);
  }

  void Remember(const std::string& line) {
    AddHistory(line);
    for (const auto& entry : pastes) {
      if (line.find(entry.first) != line.npos) return;
    }
    if (history_file.empty()) return;
    try {
      AppendPrivateFile(history_file, line + "\n");
    } catch (const Error& error) {
      WriteScreen(fmt::format("toaster: no history is kept: {}\n", error.what()));
      history_file.clear();
    }
  }
};

Terminal::Terminal(std::filesystem::path history_file) : state_(std::make_unique<State>()) {
  UseUtf8();
  state_->history_file = std::move(history_file);
  state_->history = history_init();
  state_->editor = el_init("toaster", stdin, stdout, stderr);
  CHECK(state_->history && state_->editor, "libedit has no memory");
  EditLine* editor = state_->editor;
  HistEvent event;
  ::history(state_->history, &event, H_SETSIZE, static_cast<int>(kHistoryLines));
  ::history(state_->history, &event, H_SETUNIQUE, 1);
  el_set(editor, EL_CLIENTDATA, state_.get());
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_HIST, ::history, state_->history);
  el_set(
      editor, EL_PROMPT, +[](EditLine* line) { return State::Of(line).prompt.data(); });
  el_set(
      editor, EL_GETCFN,
      +[](EditLine* line, wchar_t* character) { return State::Of(line).Next(*character); });
  el_set(editor, EL_BIND, "^I", "ed-insert", nullptr);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(editor, EL_BIND, "\\e[3~", "ed-delete-next-char", nullptr);
  el_set(editor, EL_BIND, "^W", "ed-delete-prev-word", nullptr);
  // While a reply runs: no echo, and no limit of 4096 bytes per line on what is pasted meanwhile.
  el_set(editor, EL_SETTY, "-x", "-icanon", "-echo", nullptr);
  SetHandler(SIGWINCH, [](int) { resized = true; });
  SetHandler(SIGCONT, [](int) { continued = true; });
  state_->LoadHistory();
  WriteScreen("\033[?2004h");
}

Terminal::~Terminal() {
  WriteScreen("\033[?2004l");
  std::signal(SIGWINCH, SIG_DFL);
  std::signal(SIGCONT, SIG_DFL);
  el_end(state_->editor);
  history_end(state_->history);
}

TerminalLine Terminal::Read(const std::string& prompt) {
  TerminalLine result;
  state_->prompt = prompt;
  for (;;) {
    std::string line;
    if (!state_->ReadLine(line)) {
      WriteScreen("\n");
      result.kind =
          state_->interrupted ? TerminalLine::Kind::kInterrupted : TerminalLine::Kind::kEnd;
      result.typed.clear();
      return result;
    }
    if (line.find_first_not_of(" \t") != line.npos) state_->Remember(line);
    const bool goes_on = !line.empty() && line.back() == '\\';
    if (goes_on) line.back() = '\n';
    result.typed += line;
    if (!goes_on) break;
    state_->prompt = std::string(prompt.size(), '.');
    state_->prompt.back() = ' ';
  }
  result.text = state_->Expand(result.typed);
  return result;
}

std::filesystem::path DefaultHistoryFile() {
  const std::filesystem::path state = UserDirectory("XDG_STATE_HOME", ".local/state");
  return state.empty() ? state : state / "history";
}

}  // namespace toaster
