#pragma once

#include <string>
#include <string_view>

namespace toaster {

enum class ChatCommandKind {
  kThink,
  kNoThink,
  kSystem,
  kFile,
  kSave,
  kLoad,
  kStats,
  kFold,
  kUndo,
  kClear,
  kHelp,
  kExit,
};

struct ChatCommand {
  ChatCommandKind kind = ChatCommandKind::kHelp;
  std::string argument;  ///< what follows the name, without blanks around it
};

/// Whether a line typed in a chat is a command: it begins with a slash. A blank before the slash
/// makes it a message.
bool IsChatCommand(std::string_view line);

/// Reads a command; "/max" is "/think max". Throws Error(kInvalidArgument) for a name it does not
/// know, an argument where none belongs, or none where one is needed.
ChatCommand ParseChatCommand(std::string_view line);

/// What /help shows, a line per command.
std::string ChatCommandHelp();

}  // namespace toaster
