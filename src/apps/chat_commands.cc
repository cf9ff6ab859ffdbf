#include "apps/chat_commands.h"

#include <fmt/format.h>

#include <array>

#include "base/error.h"
#include "base/printable.h"

namespace toaster {
namespace {

using Kind = ChatCommandKind;

enum class Argument { kNone, kOptional, kNeeded };

struct Known {
  std::string_view name;
  Kind kind;
  Argument argument;
  std::string_view argument_name;
  std::string_view help;
};

constexpr std::array kKnown = {
    Known{"/think", Kind::kThink, Argument::kOptional, "[low|high|max]",
          "think before answering, as hard as said"},
    Known{"/nothink", Kind::kNoThink, Argument::kNone, "", "answer without thinking"},
    Known{"/max", Kind::kThink, Argument::kNone, "", "the same as /think max"},
    Known{"/system", Kind::kSystem, Argument::kOptional, "[TEXT]",
          "set the system message; without TEXT remove it"},
    Known{"/file", Kind::kFile, Argument::kNeeded, "PATH",
          "add the text of a file to the next message"},
    Known{"/save", Kind::kSave, Argument::kNeeded, "FILE", "write the conversation as JSON"},
    Known{"/load", Kind::kLoad, Argument::kNeeded, "FILE", "go on with a saved conversation"},
    Known{"/stats", Kind::kStats, Argument::kNone, "", "figures of the last reply"},
    Known{"/fold", Kind::kFold, Argument::kNone, "",
          "fold the thinking into one line; again: unfold it"},
    Known{"/undo", Kind::kUndo, Argument::kNone, "", "take back the last message and its reply"},
    Known{"/clear", Kind::kClear, Argument::kNone, "",
          "begin a new conversation; the system message stays"},
    Known{"/help", Kind::kHelp, Argument::kNone, "", "this list"},
    Known{"/exit", Kind::kExit, Argument::kNone, "", "leave (also Ctrl-D)"},
};

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view Trim(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

}  // namespace

bool IsChatCommand(std::string_view line) { return !line.empty() && line[0] == '/'; }

ChatCommand ParseChatCommand(std::string_view line) {
  const size_t end = std::min(line.find_first_of(kBlanks), line.size());
  const std::string_view name = line.substr(0, end);
  const std::string_view argument = Trim(line.substr(end));
  for (const Known& known : kKnown) {
    if (known.name != name) continue;
    if (known.argument == Argument::kNone && !argument.empty())
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{} takes no argument", name));
    if (known.argument == Argument::kNeeded && argument.empty())
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("write {} {}", name, known.argument_name));
    return {known.kind, name == "/max" ? "max" : std::string(argument)};
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{}: no such command; /help lists them. To send a message that begins "
                          "with a slash, put a blank before it",
                          Printable(name)));
}

std::string ChatCommandHelp() {
  std::string help;
  for (const Known& known : kKnown) {
    const std::string usage = fmt::format("{} {}", known.name, known.argument_name);
    help += fmt::format("{:<22} {}\n", usage, known.help);
  }
  return help +
         "Ctrl-C stops a reply. A line that ends with \\ goes on in the next one. What you paste "
         "is one\nmessage, however many lines it has.\n";
}

}  // namespace toaster
