#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/generation_request.h"
#include "server/reply.h"

namespace toaster {

/// What POST /v1/responses asks for beyond the generation.
struct ResponsesRequest {  // NOLINT(bugprone-exception-escape): moving JSON throws nothing
  GenerationRequest generation;
  bool store = true;  ///< keep it for previous_response_id
  /// The conversation as later turns go on from it: without the instructions, which do not carry
  /// over, and without tools.
  std::vector<Message> to_keep;
  OrderedJson echo;  ///< the request's settings as every response object repeats them
};

/// The messages of an earlier response with its answer, by its id; nothing if it is not kept.
using FindResponse = std::function<std::optional<std::vector<Message>>(const std::string& id)>;

/// POST /v1/responses, as OpenAI has it. Thinking is on unless reasoning.effort is "none". Tools
/// that the provider would run are left out, and the ledger says so. Knows no sockets. Throws
/// ApiError naming the field.
ResponsesRequest ParseResponsesRequest(const JsonValue& body, const ServedModel& model,
                                       const FindResponse& find);

/// The reply as a message of the conversation that follows.
Message ReplyMessage(const Reply& reply);

std::unique_ptr<ResponseWriter> MakeResponsesWriter(const ResponsesRequest& request,
                                                    ResponseHead head);

}  // namespace toaster
