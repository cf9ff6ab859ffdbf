#pragma once

#include <string>
#include <vector>

#include "chat/conversation.h"

namespace toaster {

/// Takes what changes with the request or the day out of the system prompt of a known agent, so
/// that its beginning, and with it the cache of everything behind it, stays the same:
///
/// - billing lines (x-anthropic-billing-header: ...) and lines that name a request are left out;
/// - lines that tell the date ("Today's date: ...", "Current date and time: ...") go to a
///   latest_reminder in front of the first user message, where the format has its place for them
///   (chat-format.md 2); their time of day is left out.
///
/// Returns what was done, a sentence each; nothing if nothing was.
std::vector<std::string> TamePrompt(Conversation& conversation);

}  // namespace toaster
