#pragma once

#include <memory>

#include "server/generation_request.h"
#include "server/reply.h"

namespace toaster {

/// POST /v1/completions: texts (or token ids) to go on with; with `suffix`, to fill in between.
/// Knows no sockets. Throws ApiError naming the field.
GenerationRequest ParseCompletionRequest(const JsonValue& body, const ServedModel& model);

std::unique_ptr<ResponseWriter> MakeCompletionWriter(const GenerationRequest& request,
                                                     ResponseHead head);

}  // namespace toaster
