#pragma once

#include <string>

#include "chat/conversation.h"

namespace toaster {

/// The conversation as JSON in the form that ParseConversation() reads, one message a line, with a
/// line feed at the end. Reading it gives the same conversation, except for the bytes a model wrote
/// for its tool calls (ToolCall::sampled).
std::string WriteConversation(const Conversation& conversation);

}  // namespace toaster
