#include "server/api_error.h"

#include <algorithm>

namespace toaster {
namespace {

bool IsFieldCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '[' || c == ']';
}

int StatusOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kOutOfMemory:
      return 503;
    case ErrorCode::kCorruptFile:
    case ErrorCode::kIo:
    case ErrorCode::kCancelled:
      break;
  }
  return 500;
}

}  // namespace

std::string DumpJson(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

ApiError ApiError::From(const Error& error) {
  if (const auto* api = dynamic_cast<const ApiError*>(&error)) return *api;
  const std::string message = error.what();
  const size_t colon = message.find(": ");
  const bool field = error.code() == ErrorCode::kInvalidArgument && colon != std::string::npos &&
                     std::all_of(message.begin(), message.begin() + static_cast<ptrdiff_t>(colon),
                                 IsFieldCharacter);
  return ApiError(StatusOf(error.code()), field ? message.substr(0, colon) : "", message);
}

void RefuseField(std::string_view param, std::string_view what) {
  throw ApiError(400, std::string(param), fmt::format("{}: {}", param, what));
}

std::string_view ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

OrderedJson ErrorBody(Protocol protocol, const ApiError& error) {
  if (protocol == Protocol::kAnthropic) {
    return {{"type", "error"},
            {"error", {{"type", ErrorType(error.status())}, {"message", error.what()}}}};
  }
  const OrderedJson param = error.param().empty() ? OrderedJson() : OrderedJson(error.param());
  const OrderedJson code = error.code.empty() ? OrderedJson() : OrderedJson(error.code);
  return {{"error",
           {{"message", error.what()},
            {"type", ErrorType(error.status())},
            {"param", param},
            {"code", code}}}};
}

}  // namespace toaster
