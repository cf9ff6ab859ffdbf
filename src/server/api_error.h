#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace toaster {

/// JSON as responses are made of: members stay in the order they were added.
using OrderedJson = nlohmann::ordered_json;

/// The text of a JSON value. Bytes that are no UTF-8 become U+FFFD instead of an exception.
std::string DumpJson(const OrderedJson& json);

/// The shapes in which clients speak.
enum class Protocol {
  kOpenAi,     ///< /v1/chat/completions, /v1/completions, /v1/responses and everything else
  kAnthropic,  ///< /v1/messages
};

/// Why a request was refused or failed, in terms of HTTP. The message says what to do about it.
class ApiError : public Error {
 public:
  /// `param`: the request's field, for example messages[3].content; may be empty.
  ApiError(int status, std::string param, const std::string& message)
      : Error(ErrorCode::kInvalidArgument, message), status_(status), param_(std::move(param)) {}

  /// Any Error: its code gives the status; a field in front of its message ("tools[0].name: ...")
  /// becomes the param.
  static ApiError From(const Error& error);

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  /// Seconds after which asking again may help; 0: unknown.
  int retry_after = 0;
  /// A word for programs, where the status does not say enough; may be empty.
  std::string code;

 private:
  int status_;
  std::string param_;
};

/// Throws an ApiError of status 400 about a field of the request.
[[noreturn]] void RefuseField(std::string_view param, std::string_view what);

/// The body that tells a client of `protocol`.
OrderedJson ErrorBody(Protocol protocol, const ApiError& error);
/// The kind of error in the words both protocols share: invalid_request_error, ...
std::string_view ErrorType(int status);

}  // namespace toaster
