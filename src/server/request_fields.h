#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/python_json.h"

namespace toaster {

/// Reads the members of one JSON object of a request. A member that is missing or null is absent;
/// one of the wrong type or out of range throws an ApiError of status 400 that names it. The value
/// is borrowed.
class RequestFields {
 public:
  /// `where`: the object's own name in messages; empty for the whole request. Throws ApiError if
  /// the value is no object.
  explicit RequestFields(const JsonValue& object, std::string where = "");

  /// nullptr if absent.
  const JsonValue* Find(std::string_view key) const;
  /// Throws if absent.
  const JsonValue& Require(std::string_view key) const;

  std::optional<std::string> String(std::string_view key) const;
  std::string RequireString(std::string_view key) const;
  std::optional<bool> Boolean(std::string_view key) const;
  std::optional<int64_t> Integer(std::string_view key, int64_t least, int64_t most) const;
  std::optional<double> Number(std::string_view key, double least, double most) const;
  /// A member that has to be a list; nullptr if absent.
  const std::vector<JsonValue>* List(std::string_view key) const;
  /// A string or a list of at most `most` strings; empty if absent.
  std::vector<std::string> Strings(std::string_view key, size_t most) const;

  /// Refuses a field that this server does not have, if it is given and not `harmless` (compared
  /// as the JSON text; for example "false").
  void Refuse(std::string_view key, std::string_view why, std::string_view harmless = "") const;
  [[noreturn]] void Fail(std::string_view key, std::string_view what) const;

  /// The name of a member: where.key.
  std::string Path(std::string_view key) const;

 private:
  const JsonValue& object_;
  std::string where_;
};

/// The whole request body. Throws ApiError of status 400 for what is no JSON object.
JsonValue ParseRequestBody(std::string_view body);

/// A JSON number as an integer, if it is one.
std::optional<int64_t> AsInteger(const JsonValue& value);

}  // namespace toaster
