#pragma once

#include <memory>

#include "server/generation_request.h"
#include "server/reply.h"

namespace toaster {

/// POST /v1/chat/completions, as OpenAI has it, with DeepSeek's fields: thinking,
/// reasoning_effort, reasoning_content, prefix, user_id, prompt_cache_hit_tokens. Thinking is on
/// unless the request says otherwise, as on the DeepSeek service. Knows no sockets.
///
/// Throws ApiError naming the field.
GenerationRequest ParseChatRequest(const JsonValue& body, const ServedModel& model);

std::unique_ptr<ResponseWriter> MakeChatWriter(const GenerationRequest& request, ResponseHead head);

/// {"content": [...]} of tokens, as both the chat API and the Responses API write them.
OrderedJson ChatLogprobs(const std::vector<TokenLogprob>& tokens, int64_t alternatives);

}  // namespace toaster
