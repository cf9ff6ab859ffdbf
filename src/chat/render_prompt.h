#pragma once

#include <string_view>

#include "chat/conversation.h"
#include "chat/prompt.h"
#include "chat/prompt_texts.h"

namespace toaster {

/// Writes a conversation as the model's prompt (chat-format.md 2 to 7). It ends where the model is
/// to go on.
///
/// The prompt's stable end is what the same conversation, a turn later, is sure to begin with: all
/// of it, except
///   * in thinking mode while earlier reasoning is dropped: up to the <think> after the last user
///     message (which a new user message turns into </think>), or up to the last developer message
///     if that is later (which a new user message removes);
///   * before the token of a quick instruction on the last message, whose answer may be left out;
///   * before the text of an answer that the model is to continue.
///
/// Throws Error(kInvalidArgument) for a conversation the format can't express, and what
/// PromptTexts throws where a text is needed.
Prompt RenderPrompt(const Conversation& conversation, const PromptTexts& texts);

/// Fill in the middle (chat-format.md 8): the model goes on with what stands between.
Prompt RenderFillInTheMiddle(std::string_view prefix, std::string_view suffix);

/// The block of tool calls of an assistant message as the format has it, whatever was sampled.
Prompt RenderToolCalls(const std::vector<ToolCall>& calls);

}  // namespace toaster
