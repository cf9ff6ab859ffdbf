#pragma once

#include <vector>

#include "chat/conversation.h"

namespace toaster {

/// Turns tool messages into blocks of user messages (chat-format.md 5): neighbouring tool and user
/// messages become one user message whose blocks are joined by an empty line, the results among
/// them in the order of the calls they answer. The answer holds no tool messages; everything else
/// stays as it is.
///
/// Where a user message with a task joins a tool result before it, the task is kept (the released
/// encoder loses it).
std::vector<Message> MergeToolMessages(const std::vector<Message>& messages);

}  // namespace toaster
