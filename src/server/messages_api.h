#pragma once

#include <memory>

#include "server/generation_request.h"
#include "server/reply.h"

namespace toaster {

/// POST /v1/messages and /v1/messages/count_tokens, as Anthropic has them. Thinking is off unless
/// the request turns it on, as Anthropic's clients expect. Knows no sockets.
///
/// Throws ApiError naming the field. `counting`: max_tokens may be missing.
GenerationRequest ParseMessagesRequest(const JsonValue& body, const ServedModel& model,
                                       bool counting = false);

std::unique_ptr<ResponseWriter> MakeMessagesWriter(const GenerationRequest& request,
                                                   ResponseHead head);

}  // namespace toaster
