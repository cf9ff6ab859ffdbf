#include "apps/interactive_chat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "apps/chat_commands.h"
#include "apps/interrupt.h"
#include "apps/private_file.h"
#include "apps/reply_view.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "base/error.h"
#include "base/units.h"
#include "chat/write_conversation.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

void Write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

/// A path as typed: ~/ is the home folder.
std::filesystem::path TypedPath(const std::string& typed) {
  const char* home = std::getenv("HOME");
  if (home && typed.rfind("~/", 0) == 0) return std::filesystem::path(home) / typed.substr(2);
  return typed;
}

std::string ReadTextFile(const std::string& typed) {
  const std::filesystem::path path = TypedPath(typed);
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored))
    throw Error(ErrorCode::kInvalidArgument, path.string() + ": is no regular file");
  return ReadInput(path.is_absolute() ? path.string() : "./" + path.string());
}

class InteractiveChat {
 public:
  InteractiveChat(ChatSession& chat, RunningModel& running, const InteractiveOptions& options)
      : chat_(chat),
        running_(running),
        options_(options),
        folded_(options.folded),
        colour_(WantsColour(STDOUT_FILENO)),
        terminal_(DefaultHistoryFile()) {}

  void Run() {
    Note(fmt::format("{}; /help lists the commands", options_.title));
    while (!done_) {
      const TerminalLine line = terminal_.Read("> ");
      InterruptScope::Clear();
      switch (line.kind) {
        case TerminalLine::Kind::kEnd:
          return;
        case TerminalLine::Kind::kInterrupted:
          Note("Ctrl-D or /exit leaves");
          continue;
        case TerminalLine::Kind::kText:
          break;
      }
      if (line.text.find_first_not_of(" \t\n") == line.text.npos) continue;
      try {
        if (IsChatCommand(line.typed)) {
          Handle(ParseChatCommand(line.text));
        } else {
          Say(line.text);
        }
      } catch (const Error& error) {
        Write(fmt::format("{}\n", TerminalText(error.what())));
      }
    }
  }

 private:
  void Note(std::string_view text) { Write(DimText(text, colour_) + "\n"); }

  void Say(const std::string& text) {
    chat_.AddUserMessage(attached_ + text);
    ReplyView view(colour_, folded_);
    ProgressLine progress(true);
    GenerateHooks hooks;
    hooks.progress = [&](int64_t done, int64_t total) { progress.Show(done, total); };
    hooks.prompt_done = [&] { progress.Clear(); };
    hooks.interrupted = [] { return InterruptScope::Raised(); };
    const auto show = [&](const ReplyEvent& event) {
      Write(view.Show(event, chat_.reasoning_tokens()));
    };
    try {
      const Generated& reply = chat_.Reply(hooks, show);
      progress.Clear();
      Write(view.Finish(chat_.reasoning_tokens()));
      NoteEnd(reply);
      attached_.clear();
    } catch (const Error&) {
      progress.Clear();
      Write(view.Finish(chat_.reasoning_tokens()));
      chat_.Undo();
      Note("the message was taken back");
      throw;
    }
    InterruptScope::Clear();
  }

  void NoteEnd(const Generated& reply) {
    switch (reply.end) {
      case GenerateEnd::kInterruptedPrompt:
        Note(
            fmt::format("[stopped after {} of {} tokens of the prompt; your message stays and "
                        "the next one is added to it, /undo takes it back]",
                        GroupedText(reply.reused_tokens + reply.read_tokens),
                        GroupedText(reply.prompt_tokens)));
        return;
      case GenerateEnd::kInterrupted:
        Note("[stopped]");
        return;
      case GenerateEnd::kLength:
        Note("[stopped at --max-tokens]");
        return;
      case GenerateEnd::kContextFull:
        Note("[the model's context is full; /clear begins anew]");
        return;
      case GenerateEnd::kEndOfText:
      case GenerateEnd::kStopped:
        return;
    }
  }

  void Handle(const ChatCommand& command) {
    switch (command.kind) {
      case ChatCommandKind::kThink: {
        const Effort effort =
            command.argument.empty() ? Effort::kNone : ParseEffort(command.argument);
        chat_.SetThinking(true, effort);
        Note(effort == Effort::kNone ? "thinking"
                                     : fmt::format("thinking, effort {}", command.argument));
        return;
      }
      case ChatCommandKind::kNoThink:
        chat_.SetThinking(false, Effort::kNone);
        Note("not thinking");
        return;
      case ChatCommandKind::kSystem:
        chat_.SetSystem(command.argument);
        Note(command.argument.empty() ? "no system message" : "system message set");
        return;
      case ChatCommandKind::kFile:
        AttachFile(command.argument);
        return;
      case ChatCommandKind::kSave:
        WritePrivateFile(TypedPath(command.argument), WriteConversation(chat_.conversation()));
        Note(fmt::format("saved {}", Messages()));
        return;
      case ChatCommandKind::kLoad:
        chat_.SetConversation(
            ParseConversation(ParsePythonJson(ReadTextFile(command.argument), command.argument)));
        attached_.clear();
        Note(fmt::format("loaded {}", Messages()));
        return;
      case ChatCommandKind::kStats:
        Write(Statistics());
        return;
      case ChatCommandKind::kFold:
        Fold();
        return;
      case ChatCommandKind::kUndo:
        Note(chat_.Undo() ? fmt::format("taken back; {} left", Messages())
                          : "there is no message to take back");
        return;
      case ChatCommandKind::kClear:
        chat_.Clear();
        attached_.clear();
        Note("a new conversation");
        return;
      case ChatCommandKind::kHelp:
        Write(ChatCommandHelp());
        return;
      case ChatCommandKind::kExit:
        done_ = true;
        return;
    }
  }

  void AttachFile(const std::string& typed) {
    const std::string text = ReplaceIllFormed(ReadTextFile(typed));
    const std::string name = TypedPath(typed).filename().string();
    attached_ += fmt::format("{}:\n\n{}{}\n", ReplaceIllFormed(name), text,
                             text.empty() || text.back() == '\n' ? "" : "\n");
    Note(fmt::format("{}: {} bytes go with the next message", typed,
                     GroupedText(static_cast<int64_t>(text.size()))));
  }

  void Fold() {
    folded_ = !folded_;
    Note(folded_ ? "thinking is folded" : "thinking is shown");
    if (folded_ || chat_.conversation().messages.empty()) return;
    const Message& last = chat_.conversation().messages.back();
    if (last.role == Role::kAssistant && !last.reasoning.empty())
      Note(TerminalText(last.reasoning));
  }

  std::string Messages() const {
    const size_t count = chat_.conversation().messages.size();
    return fmt::format("{} message{}", count, count == 1 ? "" : "s");
  }

  std::string Statistics() const {
    const Generated& last = chat_.last();
    const Session& session = chat_.session();
    const Conversation& conversation = chat_.conversation();
    std::string text;
    if (last.prompt_tokens > 0) {
      text += fmt::format("prompt: {} tokens, {} reused, {} read", GroupedText(last.prompt_tokens),
                          GroupedText(last.reused_tokens), GroupedText(last.read_tokens));
      if (last.prefill_seconds > 0 && last.read_tokens > 0)
        text += fmt::format(" at {:.1f} tokens/s", last.PrefillRate());
      text += fmt::format("\nreply: {} tokens, {} of them thinking",
                          GroupedText(last.sampled_tokens), GroupedText(chat_.reasoning_tokens()));
      if (last.decode_seconds > 0 && last.sampled_tokens > 0)
        text += fmt::format(", {:.1f} tokens/s", last.DecodeRate());
      text += fmt::format(", ended by {}\n", GenerateEndName(last.end));
    }
    const int64_t limit = running_.config().max_position_embeddings;
    text += fmt::format("conversation: {}, thinking {}{}; {} tokens in the cache{}, {:.2f} MiB\n",
                        Messages(), conversation.thinking ? "on" : "off",
                        conversation.effort == Effort::kNone
                            ? ""
                            : fmt::format(" ({})", EffortName(conversation.effort)),
                        GroupedText(static_cast<int64_t>(session.tokens().size())),
                        limit > 0 ? fmt::format(" of {}", GroupedText(limit)) : "",
                        static_cast<double>(session.cache().allocated_bytes()) / (1 << 20));
    return text + fmt::format("seed {}; {}; {}\n", options_.seed, MemoryText(session.cache()),
                              running_.backend().name());
  }

  ChatSession& chat_;
  RunningModel& running_;
  InteractiveOptions options_;
  bool folded_;
  bool colour_;
  bool done_ = false;
  std::string attached_;  ///< files for the next message
  InterruptScope interrupts_{InterruptScope::Second::kSame};
  Terminal terminal_;
};

}  // namespace

int RunInteractiveChat(ChatSession& chat, RunningModel& running,
                       const InteractiveOptions& options) {
  InteractiveChat(chat, running, options).Run();
  return 0;
}

}  // namespace toaster
